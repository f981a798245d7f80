"""The generator of the built-in `triples` corpus: one to four (subject, relation, object) triples, and texts of them.

Every set of triples comes with three references, one in each manner: `plain` joins two facts in a sentence, `other`
gives each fact a sentence of its own, `inverted` begins with the object. The same split, size and seed give the same
rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anglekit_data.generation import Draw, check_request, seed_of, split_of
from anglekit_data.triples_lexicon import (
    ADJECTIVES,
    CITIES,
    FIRST_NAMES,
    GROUP_NOUNS,
    KINDS,
    LAST_NAMES,
    PLACE_NOUNS,
    VERBS,
    Relation,
)

_KIND_URN = ("person",) * 5 + ("group",) * 3 + ("restaurant",) * 4 + ("city",)
_PAIR = 0.3
_CHAIN = 0.5


@dataclass(frozen=True)
class Subject:
    """Whom or what triples speak of.

    Attributes:
        kind: a key of `KINDS`.
        name: as it stands inside a sentence; two people are joined by "and".
        pronoun: "she", "he", "it" or "they"; "they" takes verbs in the plural.
        key: the names that decide the split.
    """

    kind: str
    name: str
    pronoun: str
    key: tuple[str, ...] = ()

    @property
    def many(self) -> bool:
        """Whether verbs are in the plural."""
        return self.pronoun == "they"


@dataclass(frozen=True)
class Fact:
    """A relation of a subject, and what is said about its object, if anything."""

    relation: str
    object: Subject
    about_object: Fact | None = None


@dataclass(frozen=True)
class TripleSet:
    """A subject with its facts, in the order of the source."""

    subject: Subject
    facts: tuple[Fact, ...]


def source(triples: TripleSet) -> str:
    """The triples as text: `subject | relation | object`, with `&&` between them."""
    parts = []
    for fact in triples.facts:
        parts.append((_bare(triples.subject), fact.relation, _bare(fact.object)))
        if fact.about_object is not None:
            parts.append((_bare(fact.object), fact.about_object.relation, _bare(fact.about_object.object)))
    return " && ".join(" | ".join(part) for part in parts)


def references(triples: TripleSet) -> tuple[str, str, str]:
    """Three texts that say the same triples: plain, other, inverted."""
    return _plain(triples), _other(triples), _inverted(triples)


def generate(split: str, size: int, seed: int = 0) -> list[TripleSet]:
    """Draw `size` different sets of triples whose subjects, and people named as objects, belong to one split.

    Cities have only two relations and belong to no split: they lead a set in training only. Another seed gives another
    sample of the same split.

    Raises:
        ValueError: the split is unknown, or the size is below one.
    """
    check_request(split, size)
    draw = Draw(seed_of("triples", split, seed))
    found: list[TripleSet] = []
    seen: set[str] = set()
    while len(found) < size:
        triples = _draw_set(draw, split)
        text = source(triples)
        if text not in seen:
            seen.add(text)
            found.append(triples)
    return found


def rows(split: str, size: int, seed: int = 0) -> list[dict[str, Any]]:
    """The sets as rows: `source`, `target` (the plain reference) and all `references`."""
    drawn = [(source(triples), references(triples)) for triples in generate(split, size, seed)]
    return [{"source": text, "target": said[0], "references": list(said)} for text, said in drawn]


# ---- drawing ----


def _draw_set(draw: Draw, split: str) -> TripleSet:
    kind = draw.pick(_KIND_URN)
    if kind == "city" and split != "train":
        # Cities are the one kind of subject that held-out sets share with training, so they lead no held-out set.
        kind = "restaurant"
    subject = _draw_subject(draw, kind, split)
    count = min(1 + int(draw.chance(0.8)) + int(draw.chance(0.6)) + int(draw.chance(0.5)), len(KINDS[kind]))
    names = draw.distinct(sorted(KINDS[kind]), count)
    facts = [Fact(name, _draw_object(draw, KINDS[kind][name], split)) for name in names]
    open_places = [place for place, fact in enumerate(facts) if fact.object.kind in KINDS]
    if count < 4 and open_places and draw.chance(_CHAIN):
        place = draw.pick(open_places)
        about = facts[place].object
        relation = draw.pick(sorted(KINDS[about.kind]))
        value = _draw_object(draw, KINDS[about.kind][relation], split)
        facts[place] = Fact(facts[place].relation, about, Fact(relation, value))
    return TripleSet(subject, tuple(facts))


def _draw_subject(draw: Draw, kind: str, split: str) -> Subject:
    if kind == "person":
        first = _draw_person(draw, split)
        if not draw.chance(_PAIR):
            return first
        second = _draw_person(draw, split)
        while second == first:
            second = _draw_person(draw, split)
        return Subject(kind, f"{first.name} and {second.name}", "they", first.key + second.key)
    if kind == "city":
        return _draw_city(draw)
    return _draw_the(draw, split, kind)


def _draw_the(draw: Draw, split: str, kind: str) -> Subject:
    nouns = GROUP_NOUNS if kind == "group" else PLACE_NOUNS
    while True:
        name = f"{draw.pick(ADJECTIVES)} {draw.pick(nouns)}"
        if split_of(name) == split:
            return Subject(kind, f"the {name}", "they" if kind == "group" else "it", (name,))


def _draw_person(draw: Draw, split: str) -> Subject:
    while True:
        pronoun = draw.pick(("she", "he"))
        name = f"{draw.pick(FIRST_NAMES[pronoun])} {draw.pick(LAST_NAMES)}"
        if split_of(name) == split:
            return Subject("person", name, pronoun, (name,))


def _draw_city(draw: Draw) -> Subject:
    return Subject("city", draw.pick(CITIES), "it")


def _draw_object(draw: Draw, relation: Relation, split: str) -> Subject:
    if relation.objects == ("person",):
        return _draw_person(draw, split)
    if relation.objects == CITIES:
        return _draw_city(draw)
    return Subject("word", draw.pick(relation.objects), "it")


# ---- saying ----


def _bare(subject: Subject) -> str:
    return subject.name.removeprefix("the ")


def _verb_phrase(template: str, said: Subject, subject: Subject) -> str:
    word = said.name
    article = "an" if word[0].lower() in "aeiou" else "a"
    forms = {verb: pair[subject.many] for verb, pair in VERBS.items()}
    counted = f"{word}s" if subject.many else f"{article} {word}"
    return template.format_map({**forms, "o": word, "s": subject.name, "a o": counted})


def _phrase(fact: Fact, subject: Subject, manner: str) -> str:
    relation = KINDS[subject.kind][fact.relation]
    return _verb_phrase(relation.plain if manner == "plain" else relation.other, fact.object, subject)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _with_clause(fact: Fact, subject: Subject) -> tuple[str, bool]:
    """The plain phrase with a relative clause about its object, and whether there is one."""
    phrase = _phrase(fact, subject, "plain")
    if fact.about_object is None:
        return phrase, False
    who = "who" if fact.object.kind == "person" else "which"
    return f"{phrase}, {who} {_phrase(fact.about_object, fact.object, 'plain')}", True


def _plain(triples: TripleSet) -> str:
    sentences = []
    for start in range(0, len(triples.facts), 2):
        name = triples.subject.pronoun if start else triples.subject.name
        said = [_with_clause(fact, triples.subject) for fact in triples.facts[start : start + 2]]
        joined = f"{name} {said[0][0]}"
        if len(said) > 1:
            joined += f"{',' if said[0][1] else ''} and {said[1][0]}"
        sentences.append(_sentence(joined))
    return " ".join(sentences)


def _other(triples: TripleSet) -> str:
    sentences, name = [], triples.subject.name
    for fact in triples.facts:
        sentences.append(_sentence(f"{name} {_phrase(fact, triples.subject, 'other')}"))
        name = triples.subject.pronoun
        if fact.about_object is not None:
            sentences.append(_sentence(f"{fact.object.name} {_phrase(fact.about_object, fact.object, 'other')}"))
            # A pronoun would now point to the object.
            name = triples.subject.name
    return " ".join(sentences)


def _inverted(triples: TripleSet) -> str:
    subject, (first, *rest) = triples.subject, triples.facts
    sentences = [_sentence(_verb_phrase(KINDS[subject.kind][first.relation].inverted, first.object, subject))]
    if rest:
        phrases = [_phrase(fact, subject, "plain") for fact in rest]
        listed = " and ".join([*([", ".join(phrases[:-1])] if phrases[1:] else []), phrases[-1]])
        # "Florin is the country of Oakvale. It ..." would point to the country.
        sentences.append(_sentence(f"{subject.name if subject.kind == 'city' else subject.pronoun} {listed}"))
    for fact in triples.facts:
        if (about := fact.about_object) is not None:
            relation = KINDS[fact.object.kind][about.relation]
            sentences.append(_sentence(_verb_phrase(relation.inverted, about.object, fact.object)))
    return " ".join(sentences)
