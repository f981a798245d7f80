"""The closed vocabulary of the `inference` corpus and what its words mean to one another."""

from __future__ import annotations

__all__ = [
    "ACTIVITIES",
    "ADJECTIVES",
    "CONTAINERS",
    "NAMES",
    "NOUNS",
    "PEOPLE_ORDERS",
    "PLACES",
    "PLACE_OF",
    "THINGS",
    "THING_ORDERS",
    "TREASURES",
]

NAMES = ("Anna", "Ben", "Carl", "Dora", "Emil", "Fay", "Gus", "Hana", "Ivan", "Jane")

THINGS = ("cup", "lamp", "book", "clock", "vase", "plate", "bowl", "candle", "mirror", "radio")

# A strict order and its converse, as sentence patterns with the two terms left open.
PEOPLE_ORDERS = (
    ("{} is taller than {}", "{} is shorter than {}"),
    ("{} is older than {}", "{} is younger than {}"),
    ("{} is faster than {}", "{} is slower than {}"),
    ("{} is richer than {}", "{} is poorer than {}"),
    ("{} arrived before {}", "{} arrived after {}"),
    ("{} left before {}", "{} left after {}"),
)
THING_ORDERS = (
    ("the {} is above the {}", "the {} is below the {}"),
    ("the {} is left of the {}", "the {} is right of the {}"),
)

# A kind and what falls under it. Kinds side by side exclude each other; so do the members of one kind.
NOUNS: dict[str, tuple[str, ...]] = {
    "animals": ("dogs", "birds", "fish"),
    "dogs": ("poodles", "beagles"),
    "birds": ("robins", "owls"),
    "fish": ("trout", "salmon"),
    "plants": ("trees", "flowers"),
    "trees": ("oaks", "pines"),
    "flowers": ("roses", "tulips"),
}
ADJECTIVES: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "ruby"),
    "blue": ("navy", "azure"),
    "green": ("olive", "emerald"),
}

# A building and its rooms: who is in the kitchen is in the house, and nobody is in two buildings.
PLACES: dict[str, tuple[str, ...]] = {
    "house": ("kitchen", "attic", "bedroom"),
    "farm": ("barn", "stable", "orchard"),
    "school": ("gym", "classroom", "canteen"),
}
PLACE_OF = {room: building for building, rooms in PLACES.items() for room in rooms}

TREASURES = ("key", "coin", "ring", "pen", "letter", "ticket")
CONTAINERS = ("box", "bag", "basket", "drawer", "case", "jar")

ACTIVITIES = ("singing", "dancing", "reading", "cooking", "swimming", "sleeping", "painting", "running")
