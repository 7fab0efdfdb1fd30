"""Fixtures. They import when they are used: a test of the masks pays for torch, not for TRL and vLLM."""

import gc
import os
import random
import shutil
import sys
from pathlib import Path

import pytest


CHILDREN = [str(Path(__file__).parents[1] / folder) for folder in ("tests", "recipes", "benchmarks")]
"""What pytest's `pythonpath` gives this process, every process that a test starts gets as well."""
os.environ["PYTHONPATH"] = os.pathsep.join([*CHILDREN, *filter(None, [os.environ.get("PYTHONPATH")])])


def is_distributed(test: str) -> bool:
    return test.startswith("tests/distributed/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts two processes of its own takes longest, so it comes first."""
    items.sort(key=lambda item: not is_distributed(item.nodeid))


def pytest_collection_finish() -> None:
    """
    What the imports have made stays until the end: no garbage collection looks through it again. Each run begins and
    ends with full ones, which would take longer than the small runs themselves.
    """
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # or what watches over its objects at exit believes them lost
    if "helpers.forking" in sys.modules:
        sys.modules["helpers.forking"].stop_server()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """
    For two workers (`make test`): a file stays with one of them, for its fixtures, and so does all that starts two
    processes of its own, lest four of those run side by side.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "distributed" if is_distributed(nodeid) else nodeid.partition("::")[0]

    return ByFile(config, log)


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder))  # for a test that is the first to import datasets
    if "datasets" in sys.modules:
        monkeypatch.setattr(sys.modules["datasets"].config, "HF_DATASETS_CACHE", folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache_of_fixtures(tmp_path_factory):
    """What is made once for several tests: nothing is taken from the user's datasets cache, or left there."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield use_cache(tmp_path_factory.mktemp("cache"), monkeypatch)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Each test has a datasets cache of its own."""
    return use_cache(tmp_path / "cache", monkeypatch)


@pytest.fixture(autouse=True)
def seed() -> None:
    """A test draws the same numbers, whatever has been drawn before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def width(monkeypatch) -> None:
    """Tables are as wide as where there is no terminal, whatever the terminal of the tests."""
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="session", autouse=True)
def runs_of_the_user():
    """What a user trained before the tests is neither changed nor added to."""
    root = Path(__file__).parents[1]
    before = sorted((root / "runs").glob("*"))
    yield
    assert sorted((root / "runs").glob("*")) == before, "a test wrote into the repository's runs/"


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """The working directory: the repository as it is cloned, without the runs that a user has made in it."""
    root, folder = Path(__file__).parents[1], tmp_path / "clone"
    folder.mkdir()
    for name in ("longact_trl", "recipes", "accelerate_configs"):
        (folder / name).symlink_to(root / name)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def tokenizer():
    """One token a byte: real text, long prompts."""
    from helpers.data import byte_tokenizer

    return byte_tokenizer()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """Folder of a tiny random Qwen3 with tokenizer."""
    from helpers.models import make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("tiny_qwen3")
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def no_weights(tmp_path_factory) -> Path:
    """A model folder with everything but weights: whoever loads them gets an OSError, not a ValueError."""
    from helpers.models import make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("no_weights")
    config = make_model().config
    config.architectures = ["Qwen3ForCausalLM"]
    config.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def prompts():
    """16 prompts of different lengths."""
    from helpers.trainers import make_prompts

    return make_prompts()


@pytest.fixture
def packed(monkeypatch) -> list:
    """Every layout that was planned: a test that compares the plain path with itself would be of no use."""
    from longact_trl.packing import forward
    from longact_trl.packing.layout import lay_out

    layouts = []

    def noting(*args):
        layouts.append(lay_out(*args))
        return layouts[-1]

    monkeypatch.setattr(forward, "lay_out", noting)
    return layouts


# For longact check


@pytest.fixture
def offline_machine(monkeypatch):
    """Offline, enough disk and nobody logged in, whatever the machine."""
    import datasets
    import huggingface_hub.constants

    from helpers.check import DISK_USAGE

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: DISK_USAGE(10**16, 0, 10**16))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)


@pytest.fixture
def write(tmp_path):
    """Write a configuration for `longact check` that differs from the good one, and return its path."""
    import yaml

    from helpers.check import GOOD_CONFIG

    (tmp_path / "data.yaml").write_text(
        yaml.safe_dump({"seed": 0, "sources": [{"loader": "tiny_tasks", "num_prompts": 90}]})
    )

    def write_config(**changes) -> str:
        data = {**GOOD_CONFIG, "mixture": str(tmp_path / "data.yaml"), "output_dir": str(tmp_path / "run"), **changes}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({name: value for name, value in data.items() if value is not None}))
        return str(path)

    return write_config
