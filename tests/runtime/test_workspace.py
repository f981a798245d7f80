"""Memory kept from batch to batch."""

import gc
import platform
import subprocess
import sys
import weakref

import pytest
import torch

from anglekit.runtime.workspace import Workspace, only_new_garbage

CPU = torch.device("cpu")


def test_the_same_memory_comes_back_in_another_shape():
    workspace = Workspace()
    first = workspace.take("a", (4, 3), torch.float64, CPU)
    first.fill_(7.0)
    again = workspace.take("a", (2, 5), torch.float64, CPU)
    assert again.shape == (2, 5)
    assert again.is_contiguous()
    assert again.data_ptr() == first.data_ptr()
    assert bool((again == 7.0).all())


def test_names_and_types_and_larger_shapes_get_their_own():
    workspace = Workspace()
    first = workspace.take("a", (4,), torch.float64, CPU)
    others = [
        workspace.take("b", (4,), torch.float64, CPU),
        workspace.take("a", (4,), torch.float32, CPU),
        workspace.take("a", (5,), torch.float64, CPU),
    ]
    assert all(other.data_ptr() != first.data_ptr() for other in others)
    assert workspace.take("a", (4,), torch.float64, CPU).data_ptr() == others[2].data_ptr()
    assert workspace.take("a", (0, 3), torch.float64, CPU).shape == (0, 3)


# A few rounds go by until the heap holds a block with room for the alignment.
FAULTS = """
import resource, torch
from anglekit.runtime.workspace import keep_freed_memory
if {keeps}:
    assert keep_freed_memory()
for round in range(20):
    if round == 15:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(24 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_a_freed_block_of_an_embeddings_size_is_not_fetched_again():
    """Without the setting, the negative control, each 96 MiB are fetched page by page."""

    def faults(keeps):
        command = [sys.executable, "-c", FAULTS.format(keeps=keeps)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)

    assert faults(True) < faults(False) / 4


class _Loop:
    def __init__(self):
        self.itself = self


def test_old_objects_are_out_of_the_collectors_way_inside_the_block_and_back_after_it(monkeypatch):
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
        with monkeypatch.context() as patch:  # within another block it changes nothing, and counts nothing
            patch.delattr(gc, "get_freeze_count")
            with only_new_garbage():
                pass
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert old() is None


def test_a_process_that_froze_objects_itself_keeps_them_frozen():
    gc.freeze()
    try:
        with pytest.raises(KeyError), only_new_garbage():
            raise KeyError
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
    with pytest.raises(KeyError), only_new_garbage():
        raise KeyError
    assert gc.get_freeze_count() == 0
