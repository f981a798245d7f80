"""The `endings` and `questions` corpora: a simulator reads the stories, and wrong endings give nothing away."""

from __future__ import annotations

import math
import re
from collections import Counter

import pytest

import anglekit_data
from anglekit_data import endings
from anglekit_data.generation import Draw
from anglekit_data.worlds import FAMILIES, draw_frame, tell

SPLITS = ("train", "validation", "test")


def simulate(story):
    """Where everyone and everything is, who holds what and how many of what: an oracle that reads the sentences."""
    place, holder, lies, count = {}, {}, {}, {}
    for sentence in re.findall(r"[^.]+\.", story):
        words = sentence.strip(" .").split()
        who, verb = words[:2]
        if verb == "went":
            place[who] = words[-1]
        elif verb == "took":
            holder[words[-1]] = who
        elif verb == "left":
            assert holder.pop(words[-1]) == who
            lies[words[-1]] = place[who]
        elif verb in ("gave", "showed"):
            assert holder[words[3]] == who
            holder[words[3]] = words[-1] if verb == "gave" else who
        elif verb in ("has", "finds", "loses"):
            fruit = words[-1].removesuffix("s")
            count[fruit] = count.get(fruit, 0) + (-1 if verb == "loses" else 1) * int(words[2])
            assert 0 <= count[fruit] <= 9
        else:
            assert verb in ("thought", "sees"), sentence
    return place, holder, {**lies, **{thing: place.get(who) for thing, who in holder.items()}}, count


def follows(story, ending):
    """Whether an ending is true at the end of the story."""
    place, holder, where, count = simulate(story)
    if found := re.fullmatch(r"Now the (\w+) is in the (\w+)\.", ending):
        return where.get(found[1]) == found[2]
    if found := re.fullmatch(r"Now the (\w+) is with (\w+)\.", ending):
        return holder.get(found[1]) == found[2]
    if found := re.fullmatch(r"Now (\w+) is in the (\w+)\.", ending):
        return place.get(found[1]) == found[2]
    found = re.fullmatch(r"Now \w+ has (\d) (\w+?)s?\.", ending)
    assert found is not None, ending
    return count.get(found[2]) == int(found[1])


def answer_to(prompt):
    """The answer to a question, by the simulator."""
    story, question = re.fullmatch(r"(.*\.) ([^.]+\?) Answer:", prompt).groups()
    place, holder, where, count = simulate(story)
    if found := re.fullmatch(r"Where is the (\w+)\?", question):
        return where[found[1]]
    if found := re.fullmatch(r"Where is (\w+)\?", question):
        return place[found[1]]
    if found := re.fullmatch(r"Who has the (\w+)\?", question):
        return holder[found[1]]
    found = re.fullmatch(r"How many (\w+)s does \w+ have\?", question)
    return str(count[found[1]])


def words_alone_accuracy(train, held_out):
    """Accuracy of the likeliest ending by its words alone: naive Bayes with the words of right and of wrong endings."""
    right, wrong = Counter(), Counter()
    for choices, label in train:
        for place, choice in enumerate(choices):
            (right if place == label else wrong).update(choice.split())

    def score(choice):
        return sum(math.log((right[word] + 1) / (wrong[word] + 3)) for word in choice.split())

    hits = [max(range(4), key=lambda place: score(choices[place])) == label for choices, label in held_out]
    return sum(hits) / len(hits)


def choices_of(split):
    frame = anglekit_data.load("endings", split)
    return list(zip(frame["choices"], frame["label"], strict=True))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_exactly_the_labelled_ending_follows(split):
    frame = anglekit_data.load("endings", split)
    for row in frame.itertuples():
        true = [follows(row.prompt, ending) for ending in row.choices]
        assert true == [place == row.label for place in range(4)], row.prompt
        assert row.completion == row.choices[row.label]
        assert len(set(row.choices)) == 4


@pytest.mark.parametrize("split", ["validation", "test"])
def test_answers_are_what_the_simulator_says(split):
    frame = anglekit_data.load("questions", split)
    assert [answer_to(prompt) for prompt in frame["prompt"]] == list(frame["completion"])


def test_the_simulator_rejects_a_changed_story():
    assert follows("Ben has 3 figs. Ben loses 2 figs. Ben sees 4 figs.", "Now Ben has 1 fig.")
    assert not follows("Ben has 3 figs. Ben finds 2 figs.", "Now Ben has 1 fig.")
    assert follows("Ben took the key. Ben showed the key to Fay.", "Now the key is with Ben.")
    assert not follows("Ben took the key. Ben gave the key to Fay.", "Now the key is with Ben.")
    assert answer_to("Ben took the key. Ben went to the barn. Where is the key? Answer:") == "barn"
    story = "Ben took the key. Ben went to the barn. Ben left the key. Ben went to the attic."
    assert answer_to(f"{story} Where is the key? Answer:") == "barn"


def test_an_ending_alone_gives_a_quarter():
    train = choices_of("train")
    for split in ("validation", "test"):
        assert abs(words_alone_accuracy(train, choices_of(split)) - 0.25) < 0.02


def test_the_words_alone_baseline_would_notice_a_giveaway():
    def marked(rows):
        return [([f"{choice} indeed" if at == y else choice for at, choice in enumerate(c)], y) for c, y in rows]

    assert words_alone_accuracy(marked(choices_of("train")), marked(choices_of("validation"))) > 0.9


def test_length_and_place_of_the_right_ending_give_a_quarter():
    for split in SPLITS:
        rows = choices_of(split)
        counts = Counter(label for _, label in rows)
        assert {counts[label] for label in range(4)} == {len(rows) // 4}
        longest = [max(range(4), key=lambda place: len(choices[place])) == label for choices, label in rows]
        assert abs(sum(longest) / len(longest) - 0.25) < 0.02


def test_the_last_named_candidate_is_seldom_enough_right():
    frame = anglekit_data.load("endings", "validation")
    hits = []
    for row in frame.itertuples():
        own = [re.findall(r"\w+", choice)[2 if " has " in choice else -1] for choice in row.choices]
        hits.append(max(range(4), key=lambda place: row.prompt.rfind(own[place])) == row.label)
    assert sum(hits) / len(hits) < 0.6


@pytest.mark.parametrize("family", FAMILIES)
def test_the_candidates_stand_in_the_story(family):
    draw = Draw(3)
    frames = [frame for frame in (draw_frame(draw) for _ in range(400)) if frame.family == family]
    assert len(frames) > 50
    for frame in frames:
        for answer in frame.answers:
            story = tell(draw, frame, answer)
            # Sums are not named.
            assert family == "count" or all(other in story for other in frame.answers)


def test_a_story_for_an_answer_that_is_not_asked_for_is_refused():
    draw = Draw(3)
    frame = draw_frame(draw)
    with pytest.raises(ValueError, match="allowed are"):
        tell(draw, frame, "nowhere")


def test_each_frame_comes_with_a_story_for_each_answer():
    stories = endings.generate("endings", "test", 400)
    counts = Counter((story.frame, story.label) for story in stories)
    for frame in {story.frame for story in stories}:
        assert len({counts[frame, label] for label in range(4)}) == 1


def test_splits_share_no_content():
    sizes = anglekit_data.split_sizes("endings")
    contents = {
        split: {story.frame.content for story in endings.generate("endings", split, sizes[split])} for split in SPLITS
    }
    assert not contents["train"] & (contents["validation"] | contents["test"])
    assert not contents["validation"] & contents["test"]
