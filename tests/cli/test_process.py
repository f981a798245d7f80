"""What the command line sets for its process."""

import gc
import platform
import subprocess
import sys
import warnings
import weakref

import pytest

from anglekit.errors import ReaderWarning
from anglekit_cli.process import only_new_garbage, print_warnings_plainly

# A few rounds go by until the heap holds a block with room for the alignment.
FAULTS = """
import resource, torch
from anglekit_cli.process import keep_freed_memory

def faults():
    for round in range(20):
        if round == 15:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(24 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), keep_freed_memory(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_a_freed_block_of_an_embeddings_size_is_not_fetched_again():
    """Without the setting, the negative control, each 96 MiB are fetched page by page."""
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    without, kept, faults = done.stdout.split()
    assert kept == "True"
    assert int(faults) < int(without) / 4


def test_a_warning_of_ours_is_one_line_and_others_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    usual = warnings.formatwarning("another's", UserWarning, "file.py", 3)
    print_warnings_plainly()
    ours = warnings.formatwarning(ReaderWarning("the states depend\non padding"), ReaderWarning, "file.py", 3)
    assert ours == "warning: the states depend on padding\n"
    assert warnings.formatwarning("another's", UserWarning, "file.py", 3) == usual


REPEATED = """
import logging, sys
from anglekit_cli.process import log_each_message_once

if sys.argv[1] == "once":
    log_each_message_once()
for number in (1, 1, 2, 1):
    logging.getLogger("its.library").warning("cast from %s", number)
"""


@pytest.mark.parametrize(("how", "lines"), [("once", [1, 2]), ("as it is", [1, 1, 2, 1])])
def test_what_a_library_repeats_is_logged_once(how, lines):
    command = [sys.executable, "-c", REPEATED, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert done.stderr.splitlines() == [f"cast from {number}" for number in lines]


class _Loop:
    def __init__(self):
        self.itself = self


def test_old_objects_are_out_of_the_collectors_way_inside_the_block_and_back_after_it(nothing_frozen):
    old = weakref.ref(_Loop())
    gc.collect()
    assert old() is None, "the negative control: a loop is collected outside"
    kept = [_Loop()]
    old = weakref.ref(kept[0])
    with only_new_garbage():
        kept.clear()
        new = weakref.ref(_Loop())
        gc.collect()
        assert new() is None
        assert old() is not None
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert old() is None
