"""What GPUs can do at most by their vendors, and which share of it is assumed where hours are counted."""

from dataclasses import dataclass


SHARE_OF_FLOPS, SHARE_OF_BANDWIDTH = 0.4, 0.6
"""Of a GPU's peaks. Assumptions, not measured here."""


@dataclass(frozen=True)
class Gpu:
    """
    A GPU as its vendor describes it.

    Args:
        name (`str`):
            Its name.
        flops (`float`):
            Dense bfloat16 operations a second.
        bandwidth (`float`):
            Bytes a second.
        memory (`float`):
            GiB.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float = 80.0

    def seconds(self, flops: float, size: float = 0.0) -> float:
        """Of so many operations and bytes at the assumed shares."""
        return max(flops / (self.flops * SHARE_OF_FLOPS), size / (self.bandwidth * SHARE_OF_BANDWIDTH))

    @property
    def assumption(self) -> str:
        """What is assumed, in words."""
        return (
            f"{self.name} at {SHARE_OF_FLOPS:.0%} of {self.flops / 1e12:,.0f} TFLOP/s and {SHARE_OF_BANDWIDTH:.0%} of "
            f"{self.bandwidth / 1e12:.2f} TB/s"
        )


GPUS = {
    gpu.name.lower(): gpu
    for gpu in (
        Gpu("A100", 312e12, 2.04e12),
        Gpu("H100", 989e12, 3.35e12),
        Gpu("H800", 989e12, 3.35e12),
        Gpu("H200", 989e12, 4.8e12, 140.0),
    )
}


def gpu_named(name: str) -> Gpu:
    """
    A GPU of the table.

    Args:
        name (`str`):
            In upper or lower case.

    Returns:
        `Gpu`

    Raises:
        `ValueError`: If there is none of that name.
    """
    if name.lower() not in GPUS:
        known = ", ".join(gpu.name for gpu in GPUS.values())
        raise ValueError(f"`--gpu` {name!r} is none of {known}. Write the one that is most like it.")
    return GPUS[name.lower()]
