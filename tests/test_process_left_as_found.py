"""Calling the library changes nothing of the process: allocator, collector, threads, logging and the like."""

from __future__ import annotations

import csv
import ctypes
import gc
import logging
import os
import warnings
from pathlib import Path

import pytest
import torch
from transformers.utils import logging as transformers_logging

from anglekit.analysis.analyze import analyze
from anglekit_cli.process import keep_freed_memory, only_new_garbage
from tests.distillation.tiny_trainers import make_trainer


def found() -> dict[str, object]:
    mask = os.umask(0)
    os.umask(mask)
    return {
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), list(gc.callbacks)),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "modes": (torch.is_grad_enabled(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()),
        "logging": (
            *(logging.getLogger(name).level for name in (None, "transformers", "accelerate", "torch")),
            transformers_logging.get_verbosity(),
            transformers_logging.is_progress_bar_enabled(),
        ),
        "warnings": list(warnings.filters),
        "files": (mask, csv.field_size_limit(), Path.cwd()),
    }


@pytest.fixture
def libc_calls(monkeypatch, nothing_frozen) -> list[str]:
    """The names of C functions that are looked up."""
    names: list[str] = []
    look_up = ctypes.CDLL.__getattr__

    def noticed(library: ctypes.CDLL, name: str) -> object:
        names.append(name)
        return look_up(library, name)

    monkeypatch.setattr(ctypes.CDLL, "__getattr__", noticed)
    return names


def test_an_analysis_leaves_the_process_as_it_was(bert_pair, probe, libc_calls, two_threads):
    before = found()
    analyze(bert_pair[0], bert_pair[1:], probe)
    assert found() == before
    assert "mallopt" not in libc_calls


def test_a_training_leaves_the_process_as_it_was(tmp_path, libc_calls):
    before = found()
    make_trainer(tmp_path).train()
    assert found() == before
    assert "mallopt" not in libc_calls


def test_what_the_command_line_sets_is_noticed(libc_calls):
    before = found()
    with only_new_garbage():
        assert found() != before
    assert found() == before
    keep_freed_memory()
    assert "mallopt" in libc_calls or "gnu_get_libc_version" in libc_calls
