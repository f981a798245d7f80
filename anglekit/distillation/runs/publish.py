"""A finished run's checkpoint goes to the Hugging Face Hub, with its model card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from anglekit.distillation.runs.card import THIS_DIRECTORY, finished_facts, write_card
from anglekit.distillation.runs.directory import CARD_FILE, RunDirectory
from anglekit.distillation.settings import check_pushable
from anglekit.errors import RunError
from anglekit.models.checkpoint_files import CORRECTIONS_CONFIG
from anglekit.runtime.files import read_json_object
from anglekit.vocabulary import STUDENT_FILE

_AGAIN: Final = "train the model again"


def push_to_hub(run: str | Path, repository: str, *, private: bool = False, progress: bool = False) -> str:
    """Upload the checkpoint of a finished run as one commit, and return its address.

    The repository is made if it is not there. Its card names the repository where the run's own names its directory,
    and a student's record the teacher's name where it has a path of this machine.

    Args:
        run: its directory.
        repository: `owner/name`.
        private: whether a new repository is private.
        progress: whether to show a bar.

    Raises:
        InputError: no finished run is there, the name is not possible, there is no token, or the Hub may not be asked.
        RunError: the Hub refused, or could not be reached; the run stays as it is.
    """
    check_pushable(run, repository)
    directory = RunDirectory(run, "resume", writes=False)
    directory.check_checkpoint()
    if not (directory.checkpoint / CARD_FILE).exists():
        # Runs of earlier versions have none.
        write_card(finished_facts(directory), directory.checkpoint)
    api = HfApi()
    try:
        with _bars(shown=progress):
            api.create_repo(repository, private=private or None, exist_ok=True)
            done = api.create_commit(
                repository, _operations(directory, repository), commit_message=f"Checkpoint of {directory.path.name}"
            )
    except Exception as error:  # of the Hub, of its client, of the connection: no common class
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(
            f"{directory.path} is finished and kept, and could not be pushed to {repository} ({reason}); "
            f"push it later: anglekit push {directory.path} {repository}"
        ) from error
    return str(done.repo_url)


def _operations(directory: RunDirectory, repository: str) -> list[CommitOperationAdd]:
    """Return every file of the checkpoint; those that name a place on this machine name the repository instead."""
    checkpoint, rewritten = directory.checkpoint, dict[str, str]()
    card = (checkpoint / CARD_FILE).read_text(encoding="utf-8")
    rewritten[CARD_FILE] = card.replace(THIS_DIRECTORY, f"checkpoint = {repository!r}".replace("'", '"'))
    if (checkpoint / STUDENT_FILE).exists():
        note = read_json_object(checkpoint / STUDENT_FILE, _AGAIN)
        # The run knows what its teacher was; from another working directory a path may look like a hub id. Of a run
        # of an earlier version only its card may: that names a base model where it was one of the Hub.
        origin = directory.provenance().origin
        on_hub = origin.directory is None and f"\nbase_model: {origin.source}\n" in card
        if not on_hub and note.get("teacher") != origin.source_name:
            rewritten[STUDENT_FILE] = json.dumps({**note, "teacher": origin.source_name}, indent=2)
    if (checkpoint / CORRECTIONS_CONFIG).exists():
        # From the Hub, transformers takes the weights from the model that is named here; these lie beside.
        corrections = read_json_object(checkpoint / CORRECTIONS_CONFIG, _AGAIN)
        rewritten[CORRECTIONS_CONFIG] = json.dumps({**corrections, "base_model_name_or_path": repository}, indent=2)
    found = []
    for file in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        name = file.relative_to(checkpoint).as_posix()
        found.append(CommitOperationAdd(name, rewritten[name].encode() if name in rewritten else file))
    return found


@contextmanager
def _bars(*, shown: bool) -> Iterator[None]:
    """Show or hide the client's bars, whose setting is the process's; afterwards it is as before."""
    before = are_progress_bars_disabled()
    (enable_progress_bars if shown else disable_progress_bars)()
    try:
        yield
    finally:
        (disable_progress_bars if before else enable_progress_bars)()
