"""Who and what the `triples` corpus speaks of, and how each relation is said."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_NAMES: dict[str, tuple[str, ...]] = {
    "she": ("Ada", "Bianca", "Clara", "Daria", "Elena", "Flora", "Greta", "Hilda", "Irina", "Julia", "Kira", "Laura"),
    "he": ("Adrian", "Boris", "Cezar", "Dan", "Emil", "Felix", "Goran", "Henrik", "Ivan", "Jonas", "Karl", "Liviu"),
}
LAST_NAMES = (
    *("Albu", "Berg", "Costa", "Dahl", "Ene", "Falk", "Gross", "Holm", "Ionescu", "Jansen", "Keller", "Lund"),
    *("Marin", "Novak", "Olsen", "Popa", "Roth", "Stan", "Toma", "Vidal"),
)
ADJECTIVES = ("Amber", "Copper", "Golden", "Hidden", "Lonely", "Quiet", "Red", "Silver", "Velvet", "Wild")
GROUP_NOUNS = ("Foxes", "Herons", "Lanterns", "Otters", "Owls", "Pilots", "Rivers", "Sparrows", "Thieves", "Wolves")
PLACE_NOUNS = ("Anchor", "Barrel", "Castle", "Fountain", "Garden", "Kettle", "Lion", "Mill", "Oak", "Spoon")

CITIES = (
    *("Alderport", "Brightwater", "Corvin", "Dunmere", "Eastfield", "Fairhaven", "Graymoor", "Highbridge", "Islefort"),
    *("Kingsrow", "Lakemont", "Millbrook", "Northgate", "Oakvale", "Portsea", "Ravenhill"),
)
COUNTRIES = ("Aldania", "Borovia", "Cartania", "Drenland", "Estoria", "Florin")
RIVERS = ("Aven", "Bree", "Calder", "Dorn", "Esk", "Frome")
JOBS = (
    *("actor", "architect", "baker", "carpenter", "doctor", "engineer", "farmer", "gardener", "historian", "judge"),
    *("lawyer", "nurse", "optician", "painter", "teacher", "writer"),
)
COMPANIES = ("Alpina", "Borealis", "Cosmos", "Delphi", "Electra", "Fortuna", "Galileo", "Helios")
LANGUAGES = ("Danish", "Dutch", "French", "German", "Greek", "Polish", "Romanian", "Spanish")
HOBBIES = ("archery", "chess", "cycling", "fishing", "painting", "rowing", "sailing", "singing")
GENRES = ("blues", "folk", "funk", "jazz", "metal", "opera", "rock", "swing")
LABELS = ("Apex", "Bluebird", "Comet", "Dynamo", "Echo", "Fable")
FOODS = ("Chinese", "Greek", "Indian", "Italian", "Japanese", "Mexican", "Thai", "Turkish")
PRICES = ("cheap", "high", "low", "moderate")
RATINGS = ("average", "excellent", "good", "poor")
YEARS = tuple(str(year) for year in range(1950, 1990))

VERBS: dict[str, tuple[str, str]] = {
    "is": ("is", "are"),
    "was": ("was", "were"),
    "has": ("has", "have"),
    "comes": ("comes", "come"),
    "works": ("works", "work"),
    "serves": ("serves", "serve"),
    "speaks": ("speaks", "speak"),
    "enjoys": ("enjoys", "enjoy"),
    "plays": ("plays", "play"),
    "records": ("records", "record"),
    "belongs": ("belongs", "belong"),
    "lies": ("lies", "lie"),
    "charges": ("charges", "charge"),
}
"""Each verb in the singular and in the plural."""


@dataclass(frozen=True)
class Relation:
    """How a relation is said.

    Attributes:
        objects: the words that may be its object; the name of a kind in `KINDS` stands for one drawn from that kind.
        plain: a verb phrase; `{o}` is the object, a verb in braces agrees with the subject, `{a o}` is the object with
            its article or, after several subjects, in the plural.
        other: a second verb phrase.
        inverted: a whole sentence that begins otherwise; `{s}` is the subject.
    """

    objects: tuple[str, ...]
    plain: str
    other: str
    inverted: str


KINDS: dict[str, dict[str, Relation]] = {
    "person": {
        "birthplace": Relation(CITIES, "{was} born in {o}", "{comes} from {o}", "{o} is where {s} {was} born"),
        "birth year": Relation(YEARS, "{was} born in {o}", "{has} the birth year {o}", "in {o} {s} {was} born"),
        "occupation": Relation(JOBS, "{is} {a o}", "{works} as {a o}", "the occupation of {s} is {o}"),
        "employer": Relation(COMPANIES, "{works} for {o}", "{is} with {o}", "{o} employs {s}"),
        "language": Relation(LANGUAGES, "{speaks} {o}", "{has} {o} as a language", "{o} is the language of {s}"),
        "hobby": Relation(HOBBIES, "{enjoys} {o}", "{has} {o} as a hobby", "the hobby of {s} is {o}"),
    },
    "group": {
        "genre": Relation(GENRES, "{plays} {o}", "{is} known for {o}", "{o} is the genre of {s}"),
        "hometown": Relation(CITIES, "{comes} from {o}", "{is} based in {o}", "{o} is the hometown of {s}"),
        "formed": Relation(YEARS, "{was} formed in {o}", "{has} existed since {o}", "in {o} {s} {was} formed"),
        "label": Relation(LABELS, "{records} for {o}", "{is} signed to {o}", "{o} is the label of {s}"),
        "leader": Relation(("person",), "{is} led by {o}", "{has} {o} as leader", "{o} leads {s}"),
    },
    "restaurant": {
        "food": Relation(FOODS, "{serves} {o} food", "{is} a place for {o} food", "{o} food is served at {s}"),
        "city": Relation(CITIES, "{is} in {o}", "{lies} in {o}", "in {o} there is {s}"),
        "price range": Relation(PRICES, "{has} a {o} price range", "{charges} {o} prices", "prices are {o} at {s}"),
        "rating": Relation(RATINGS, "{has} a rating of {o}", "{is} rated {o}", "the rating of {s} is {o}"),
        "owner": Relation(("person",), "{belongs} to {o}", "{is} owned by {o}", "{o} owns {s}"),
    },
    "city": {
        "country": Relation(COUNTRIES, "{is} in {o}", "{lies} in {o}", "{o} is the country of {s}"),
        "river": Relation(RIVERS, "{lies} on the river {o}", "{is} on the river {o}", "the river {o} flows by {s}"),
    },
}
"""The relations that a subject of each kind may have."""
