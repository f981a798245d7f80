"""The closed vocabulary of the `inference` corpus and what its words mean to one another."""

from __future__ import annotations

from collections.abc import Mapping

NAMES = ("Anna", "Ben", "Carl", "Dora", "Emil", "Fay", "Gus", "Hana")

THINGS = ("cup", "lamp", "book", "clock", "vase", "plate", "bowl", "candle")

TREASURES = ("key", "coin", "ring", "pen")
CONTAINERS = ("box", "bag", "basket", "drawer")

# A strict order and its converse, as sentence patterns with the two terms left open.
PEOPLE_ORDERS = (
    ("{} is taller than {}", "{} is shorter than {}"),
    ("{} is older than {}", "{} is younger than {}"),
    ("{} is faster than {}", "{} is slower than {}"),
    ("{} arrived before {}", "{} arrived after {}"),
)
THING_ORDERS = (
    ("the {} is above the {}", "the {} is below the {}"),
    ("the {} is left of the {}", "the {} is right of the {}"),
)

# A word and the words that fall under it. Words side by side exclude each other.
NOUNS: dict[str, tuple[str, ...]] = {
    "animals": ("dogs", "birds"),
    "dogs": ("poodles", "beagles"),
    "birds": ("robins", "owls"),
    "plants": ("trees", "flowers"),
    "trees": ("oaks", "pines"),
    "flowers": ("roses", "tulips"),
}
ADJECTIVES: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "ruby"),
    "blue": ("navy", "azure"),
    "green": ("olive", "emerald"),
}
MOTIONS: dict[str, tuple[str, ...]] = {
    "moving": ("walking", "running", "crawling"),
    "resting": ("sitting", "lying", "kneeling"),
}
# A building and its rooms: whoever is in the kitchen is in the house, and nobody is in two buildings.
PLACES: dict[str, tuple[str, ...]] = {
    "house": ("kitchen", "attic", "bedroom"),
    "farm": ("barn", "stable", "orchard"),
    "school": ("gym", "classroom", "canteen"),
}


def related(tree: Mapping[str, tuple[str, ...]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """For each word of a tree, the words that stand to it as `same`, `narrower`, `wider` and `disjoint`."""
    words = list(dict.fromkeys([*tree, *(leaf for leaves in tree.values() for leaf in leaves)]))

    def under(word: str) -> list[str]:
        return [deeper for leaf in tree.get(word, ()) for deeper in (leaf, *under(leaf))]

    table = {}
    for word in words:
        narrower = tuple(under(word))
        wider = tuple(other for other in words if word in under(other))
        disjoint = tuple(other for other in words if other not in (word, *narrower, *wider))
        table[word] = {"same": (word,), "narrower": narrower, "wider": wider, "disjoint": disjoint}
    return table
