"""Memory kept from batch to batch."""

import torch

from anglekit.runtime.workspace import Workspace

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
