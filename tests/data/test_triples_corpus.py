"""The `triples` corpus: every reference says every triple, agrees with its subject, and points to whom it should."""

from __future__ import annotations

import re
from collections import Counter

import pytest

import anglekit_data
from anglekit_data import triples
from anglekit_data.triples import Fact, Subject, TripleSet
from anglekit_data.triples_lexicon import FIRST_NAMES, JOBS, KINDS, LAST_NAMES, VERBS

SPLITS = ("train", "validation", "test")
PLURALS = {pair[1] for pair in VERBS.values()}
SINGULARS = {pair[0] for pair in VERBS.values()}
PEOPLE = {f"{first} {last}" for names in FIRST_NAMES.values() for first in names for last in LAST_NAMES}


@pytest.fixture(scope="module")
def rows():
    return {split: triples.rows(split, anglekit_data.split_sizes("triples")[split]) for split in SPLITS}


def unsaid(source, text):
    """Words of the source's subjects and objects that a text leaves out, in any case and number."""
    said = {word.lower() for word in re.findall(r"\w+", text)}
    said |= {word.removesuffix("s") for word in said}
    named = [part for triple in source.split(" && ") for place, part in enumerate(triple.split(" | ")) if place != 1]
    return {word for part in named for word in part.lower().split() if word not in said}


def disagreements(text):
    """Pronouns whose next verb is of the other number."""
    wrong = []
    for pronoun, verb in re.findall(r"\b(She|He|It|They) (\w+)", text):
        wrong += [(pronoun, verb)] if verb in (SINGULARS if pronoun == "They" else PLURALS) else []
    return wrong


def test_every_reference_says_every_subject_and_object(rows):
    for row in rows["validation"] + rows["train"][:2000]:
        assert row["target"] == row["references"][0]
        for text in row["references"]:
            assert unsaid(row["source"], text) == set()


def test_a_reference_of_another_set_is_noticed(rows):
    first, second = rows["test"][:2]
    assert unsaid(first["source"], second["target"])


def test_pronouns_and_verbs_agree(rows):
    texts = [text for row in rows["train"][:3000] for text in row["references"]]
    assert not any(disagreements(text) for text in texts)
    assert {found for text in texts for found in re.findall(r"\b(She|He|It|They)\b", text)} == {
        "She",
        "He",
        "It",
        "They",
    }
    assert disagreements("They is bakers.") == [("They", "is")]
    assert disagreements("She serve food.") == [("She", "serve")]


def test_pronouns_follow_the_first_name(rows):
    gender = {first: pronoun.capitalize() for pronoun, names in FIRST_NAMES.items() for first in names}
    seen = Counter()
    for row in rows["train"][:3000]:
        subject = row["source"].split(" | ")[0]
        if subject in PEOPLE:
            for text in row["references"]:
                found = set(re.findall(r"\b(She|He|They)\b", text))
                assert found <= {gender[subject.split()[0]]}
                seen.update(found)
    assert min(seen["She"], seen["He"]) > 100


def test_articles_and_plurals_of_jobs(rows):
    text = " ".join(text for row in rows["train"] for text in row["references"])
    for job in JOBS:
        article = "an" if job[0] in "aeiou" else "a"
        assert f" {article} {job}" in text
        assert f" {'a' if article == 'an' else 'an'} {job}" not in text
        assert f"are {job}s" in text


def test_people_groups_and_restaurants_belong_to_one_split(rows):
    def names(split):
        parts = {part for row in rows[split] for part in re.split(r" \| | && | and ", row["source"])}
        leads = {row["source"].split(" | ")[0] for row in rows[split]}
        return (parts & PEOPLE) | {lead for lead in leads if " and " not in lead}

    held_out = names("validation") | names("test")
    assert len(held_out) > 50
    assert not names("train") & held_out
    assert not names("validation") & names("test")


def test_held_out_words_all_occur_in_training(rows):
    words = {
        split: {
            word for row in rows[split] for word in re.findall(r"\w+", " ".join((row["source"], *row["references"])))
        }
        for split in SPLITS
    }
    assert words["validation"] | words["test"] <= words["train"]


def test_sets_have_one_to_four_triples_and_three_references(rows):
    counts = Counter(row["source"].count("&&") + 1 for row in rows["train"])
    assert set(counts) == {1, 2, 3, 4}
    assert all(len(set(row["references"])) == 3 for split in SPLITS for row in rows[split])


def test_every_relation_is_said_in_all_three_manners():
    for kind, relations in KINDS.items():
        for name in relations:
            subject = Subject(kind, "Oakvale" if kind == "city" else "the Red Oak", "it")
            texts = triples.references(TripleSet(subject, (Fact(name, Subject("word", "Esk", "it")),)))
            assert len(set(texts)) == 3
            assert all("Esk" in text and "{" not in text and text[0].isupper() and text[-1] == "." for text in texts)


def test_a_known_set_reads_as_english():
    ada = Subject("person", "Ada Berg", "she")
    owl = Subject("city", "Oakvale", "it")
    facts = (
        Fact("birthplace", owl, Fact("country", Subject("word", "Florin", "it"))),
        Fact("occupation", Subject("word", "actor", "it")),
        Fact("hobby", Subject("word", "chess", "it")),
    )
    ours = TripleSet(ada, facts)
    assert triples.source(ours) == (
        "Ada Berg | birthplace | Oakvale && Oakvale | country | Florin && Ada Berg | occupation | actor && "
        "Ada Berg | hobby | chess"
    )
    assert triples.references(ours) == (
        "Ada Berg was born in Oakvale, which is in Florin, and is an actor. She enjoys chess.",
        "Ada Berg comes from Oakvale. Oakvale lies in Florin. Ada Berg works as an actor. She has chess as a hobby.",
        "Oakvale is where Ada Berg was born. She is an actor and enjoys chess. Florin is the country of Oakvale.",
    )
