import datasets
import pytest
from data_helpers import byte_tokenizer


@pytest.fixture
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Each test has a datasets cache of its own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"
