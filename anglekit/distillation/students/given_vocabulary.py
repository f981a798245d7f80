"""Whether a given student reads the data's tokens as its teacher does, and over which of them they are compared."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PretrainedConfig
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.tasks.data import TokenizedExamples
from anglekit.distillation.tasks.prepared_data import PreparedData
from anglekit.errors import InputError
from anglekit.models.load_options import LoadOptions
from anglekit.probes.encode import chunks, encode_texts
from anglekit.probes.shared_vocabulary import SharedVocabulary, shared_vocabulary, stored_difference
from anglekit.probes.tokenize import unlike_words


def check_stored_vocabulary(teacher: str, source: str, load: LoadOptions | None) -> None:
    """Refuse a given student of another vocabulary, as far as the tokenizers' files say, before weights are read.

    Args:
        teacher: its directory, run directory or hub id.
        source: the student's.
        load: what is allowed in loading.

    Raises:
        InputError: the vocabularies are different.
    """
    if difference := stored_difference(teacher, source, load):
        raise _another(source, difference)


def _another(source: str, difference: str) -> InputError:
    return InputError(
        f"the student {source} has another vocabulary than its teacher: {difference}",
        "give a student with the teacher's vocabulary",
    )


def checked_vocabulary(
    source: str, config: PretrainedConfig, own: Tokenizer | None, data: PreparedData, teacher: PretrainedConfig
) -> SharedVocabulary:
    """Return what the vocabularies of a teacher and a given student share.

    Every text of every table is compared where the tokenizers do not follow the same rules.

    Args:
        source: the student's, as given.
        config: its configuration.
        own: its tokenizer, or None where it has none and takes the teacher's.
        data: the tables in the teacher's tokens.
        teacher: its configuration.

    Raises:
        InputError: the vocabularies are different, or a text is read differently, or holds a token that one of the two
            lacks.
    """
    mine = data.tokenizer
    rows, theirs = (int(getattr(one, "vocab_size", len(mine))) for one in (config, teacher))
    shared = shared_vocabulary(mine, mine if own is None else own, theirs, rows)
    if shared.relation == "different":
        raise _another(source, shared.difference)
    read = [(name, each) for name, one in _tables(data) for each in (one, one.scored or one)]
    for name, examples in read:
        if (most := max(examples.highest("input_ids"), examples.highest("labels"))) >= shared.entries:
            token = mine.convert_ids_to_tokens(most)
            raise InputError(
                f"table {name} holds the token {token!r} (number {most}), and the student {source} shares only those "
                f"below {shared.entries} with its teacher: {shared.difference}",
                "leave such texts out, or give a student with the teacher's vocabulary",
            )
    if own is not None and not shared.one_way:
        for name, examples in _tables(data):
            for texts in () if examples.table is None else examples.table.texts_in_pieces():
                _check_texts(source, name, texts, mine, own)
    return shared


def _tables(data: PreparedData) -> list[tuple[str, TokenizedExamples]]:
    return [("train", data.train), *data.evaluations.items()]


def _check_texts(source: str, table: str, texts: Sequence[str], mine: Tokenizer, own: Tokenizer) -> None:
    unlike = []
    for chunk in chunks(texts):
        one, other = (encode_texts(each, texts[chunk])["input_ids"] for each in (mine, own))
        unlike += [chunk.start + place for place, ids in enumerate(zip(one, other, strict=True)) if ids[0] != ids[1]]
    if unlike:
        raise InputError(
            f"the student {source} reads {len(unlike)} of {len(texts)} texts of table {table} otherwise than its "
            f"teacher: {unlike_words(texts[unlike[0]], mine, own)}",
            "leave such texts out, or give a student with the teacher's tokenizer",
        )
