"""The generator of the built-in `endings` and `questions` corpora: stories with four endings, or with a question.

Four candidate endings are drawn first, then a story for each of them, so that every ending is right as often as each of
the others: an ending alone says nothing. `questions` asks for one word about the same worlds. The same split, size and
seed give the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anglekit_data.generation import Draw, check_request, seed_of, split_of
from anglekit_data.worlds import Frame, draw_frame, tell


@dataclass(frozen=True)
class Story:
    """A story, what is asked of it, and which of the frame's candidates follows."""

    text: str
    frame: Frame
    label: int


def generate(corpus: str, split: str, size: int, seed: int = 0) -> list[Story]:
    """Draw `size` stories of one split in random order, each frame with a story for each of its four answers.

    Each corpus (`endings`, `questions`) has its own stream, and another seed gives another sample of the same split.
    Held-out stories are all different.

    Raises:
        ValueError: the split is unknown, or the size is not a positive multiple of four.
    """
    check_request(split, size, multiple=4)
    draw = Draw(seed_of(corpus, split, seed))
    found: list[Story] = []
    seen: set[tuple[str, str]] = set()
    while len(found) < size:
        frame = draw_frame(draw)
        if split_of(frame.content) != split:
            continue
        new = [Story(tell(draw, frame, answer), frame, label) for label, answer in enumerate(frame.answers)]
        keys = {(story.text, frame.content) for story in new}
        if split != "train" and seen & keys:
            continue
        seen |= keys
        found += new
    return draw.distinct(found, len(found))


def rows(split: str, size: int, seed: int = 0) -> list[dict[str, Any]]:
    """Stories as `prompt`, `choices` (four endings), `label` (which of them is right) and `completion` (that one)."""
    return [
        {
            "prompt": story.text,
            "choices": list(story.frame.endings),
            "label": story.label,
            "completion": story.frame.endings[story.label],
        }
        for story in generate("endings", split, size, seed)
    ]


def question_rows(split: str, size: int, seed: int = 0) -> list[dict[str, Any]]:
    """Stories as `prompt` (story, question and "Answer:") and `completion` (a word)."""
    return [
        {
            "prompt": f"{story.text} {story.frame.question} Answer:",
            "completion": story.frame.answers[story.label],
        }
        for story in generate("questions", split, size, seed)
    ]
