"""What operators allocate."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Allocations(TorchDispatchMode):
    """Counts the tensors that operators make, by size and dtype; views are no new memory."""

    def __init__(self):
        super().__init__()
        self.made = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, torch.Tensor) and tensor._base is None and not func.is_view:
                self.made[tensor.numel(), tensor.dtype] += 1
        return output
