"""How the vocabularies of a teacher and a student relate: which token ids stand for the same in both.

Models of one family often share a tokenizer and differ in the rows of their embeddings, which are padded to a size
that suits the hardware (Qwen2.5 has 151,665 tokens, and 151,936 or 152,064 rows), or one of them has tokens added at
the end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.display.counts import counted
from anglekit.models.checkpoints import load_tokenizer
from anglekit.models.load_options import LoadOptions, checkpoint_of

Relation = Literal["same", "padded", "appended", "different"]


@dataclass(frozen=True)
class SharedVocabulary:
    """What two vocabularies have in common.

    Attributes:
        relation: "same"; "padded" where the models have other numbers of rows behind one tokenizer; "appended" where
            tokens at the end are known to one side alone; "different" where no ids can be shared.
        entries: ids from 0 to this, exclusive, stand for the same in both; 0 where the vocabularies are different.
        teacher_entries: the teacher's rows.
        student_entries: the student's.
        difference: what differs, in words and with an example; "" for the same and for padded ones.
        one_way: whether both tokenizers follow the same rules, so that no text can be read differently.
    """

    relation: Relation
    entries: int
    teacher_entries: int
    student_entries: int
    difference: str = ""
    one_way: bool = False

    @property
    def reduces(self) -> bool:
        """Whether one of the models has more entries than are shared."""
        return self.entries < max(self.teacher_entries, self.student_entries)

    def in_words(self) -> str:
        """Return a sentence for plan, run and report; "" where nothing needs to be said."""
        if self.relation == "different":
            return f"teacher and student have different vocabularies: {self.difference}"
        if not self.reduces:
            return ""
        added = f"; {self.difference}" if self.difference else ""
        return (
            f"of the teacher's {self.teacher_entries} and the student's {self.student_entries} vocabulary entries the "
            f"first {self.entries} are shared: the KL is over these, each side renormalised over them{added}"
        )


def vocabulary_entries(model: PreTrainedModel) -> int | None:
    """Return how many token ids a model can both read and predict; without a language-model head, read.

    None where it has no table of tokens (CANINE reads code points).
    """
    sizes = []
    for find in (model.get_input_embeddings, model.get_output_embeddings):
        try:
            weight = getattr(find(), "weight", None)
        except (AttributeError, NotImplementedError):
            continue
        if isinstance(weight, Tensor):
            sizes.append(int(weight.shape[0]))
    stated = getattr(model.config, "vocab_size", None)
    # The stored shape of quantised and sharded weights is another one.
    if isinstance(stated, int) and stated not in sizes:
        sizes = [stated]
    return min(sizes, default=None)


def shared_vocabulary(
    teacher_tokenizer: Tokenizer,
    student_tokenizer: Tokenizer,
    teacher: PreTrainedModel | int,
    student: PreTrainedModel | int,
) -> SharedVocabulary:
    """Say how the vocabularies of a teacher and a student relate.

    Tokens known to both must have one id in both, and those known to one side alone must come behind all of them and be
    fewer. Which texts both read alike is another question (`tokenize.read_alike`): equal vocabularies may come with
    other rules of splitting.

    Args:
        teacher_tokenizer: its tokenizer.
        student_tokenizer: its tokenizer.
        teacher: the model, or the number of its vocabulary's rows.
        student: likewise.

    Example:
        >>> shared = shared_vocabulary(tokenizer, tokenizer, 152064, 151936)
        >>> shared.relation, shared.entries
        ('padded', 151936)
    """
    sizes = [
        each if isinstance(each, int) else vocabulary_entries(each) or len(tokenizer)
        for each, tokenizer in ((teacher, teacher_tokenizer), (student, student_tokenizer))
    ]
    one_way = follow_one_way(teacher_tokenizer, student_tokenizer)
    if one_way and sizes[0] == sizes[1]:  # a large vocabulary takes a third of a second to list
        return SharedVocabulary("same", sizes[0], sizes[0], sizes[1], one_way=True)
    known = teacher_tokenizer.get_vocab()
    known_to_student = known if one_way else student_tokenizer.get_vocab()
    difference, entries = _first_difference(known, known_to_student)
    if entries == 0:
        return SharedVocabulary("different", 0, sizes[0], sizes[1], difference, one_way)
    entries = min(entries, *sizes)
    if not difference and (without_row := [token for token, number in known.items() if number >= entries]):
        first = min(without_row, key=known.__getitem__)
        role = "teacher" if sizes[0] < sizes[1] else "student"
        difference = f"token {first!r} (number {known[first]}) has no entry in the {role}"
    relation: Relation = "appended" if difference else "padded" if sizes[0] != sizes[1] else "same"
    return SharedVocabulary(relation, entries, sizes[0], sizes[1], difference, one_way)


def stored_difference(teacher: str, student: str, load: LoadOptions | None = None) -> str:
    """Return why two checkpoints' vocabularies are "different", from the files of their tokenizers; "" else.

    Weights are not read. Nothing is compared where a directory has no tokenizer.json, or both have the same one.

    Args:
        teacher: its directory, run directory or hub id.
        student: likewise.
        load: what is allowed in loading.
    """
    files = [Path(checkpoint_of(source)) / "tokenizer.json" for source in (teacher, student)]
    if not all(file.is_file() for file in files) or files[0].read_bytes() == files[1].read_bytes():
        return ""
    own = load or LoadOptions()
    found = [load_tokenizer(checkpoint_of(source), own) for source in (teacher, student)]
    one, other = found
    if one is None or other is None:
        return ""
    shared = shared_vocabulary(one, other, len(one), len(other))
    return shared.difference if shared.relation == "different" else ""


def follow_one_way(one: Tokenizer, other: Tokenizer) -> bool:
    """Return whether two tokenizers certainly make the same ids of every text."""
    if one is other:
        return True
    if type(one) is not type(other) or not (one.is_fast and other.is_fast):
        return False
    # Everything from normaliser to post-processor; five times as fast as two vocabularies in Python.
    texts = one.backend_tokenizer.to_str(), other.backend_tokenizer.to_str()
    return texts[0] == texts[1] or _rules(texts[0]) == _rules(texts[1])


def _rules(text: str) -> dict[str, Any]:
    """Return a stored tokenizer without how it was last asked to pad and cut."""
    return {**json.loads(text), "truncation": None, "padding": None}


def _first_difference(teacher: Mapping[str, int], student: Mapping[str, int]) -> tuple[str, int]:
    """Return what differs, in words, and from which id on.

    The number is 0 where nothing can be shared, and beyond all ids where nothing differs: rows that no
    tokenizer uses are shared with the rest.
    """
    if teacher == student:
        return "", sys.maxsize
    alone = {
        role: {token: number for token, number in mine.items() if token not in theirs}
        for role, mine, theirs in (("teacher", teacher, student), ("student", student, teacher))
    }
    moved = [token for token, number in teacher.items() if student.get(token, number) != number]
    if moved:
        token = min(moved, key=teacher.__getitem__)
        return f"token {token!r} is number {teacher[token]} in the teacher's and {student[token]} in the student's", 0
    firsts = {role: min(tokens, key=tokens.__getitem__) for role, tokens in alone.items() if tokens}
    role = min(firsts, key=lambda each: alone[each][firsts[each]])
    number = alone[role][firsts[role]]
    other = "student" if role == "teacher" else "teacher"
    common = teacher.keys() & student.keys()
    last = max((teacher[token] for token in common), default=-1)
    if number < last or 2 * len(common) < max(len(teacher), len(student)):
        return f"token {firsts[role]!r} is number {number} in the {role}'s and absent from the {other}'s", 0
    words = "; ".join(
        f"{counted(len(tokens), 'token')} at the end {'is' if len(tokens) == 1 else 'are'} known to the {side} alone, "
        f"such as {firsts[side]!r} (number {tokens[firsts[side]]})"
        for side, tokens in alone.items()
        if tokens
    )
    return words, number
