"""What of datasets and huggingface_hub is unexported and this package stands on."""

import pytest

from helpers.contracts import Contract


CONTRACTS = [
    Contract("datasets.fingerprint.Hasher", "has .hash", "one name in the cache for the same rows read the same way"),
    Contract("datasets.exceptions.DatasetGenerationError", "has .__cause__", "the row that could not be read is behind it"),
    Contract("datasets.config", "has .HF_DATASETS_CACHE .HF_HUB_OFFLINE", "tests have a cache of their own"),
    Contract("huggingface_hub.constants", "has .ENDPOINT .HF_HUB_OFFLINE .HF_HUB_DISABLE_XET", "tests push to a Hub on the loopback"),
    Contract("huggingface_hub.utils.validate_repo_id", "(repo_id)", "whether a name can be a dataset's on the Hub"),
]  # fmt: skip


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.name}:{c.shape[:12]}")
def test_contract(contract):
    contract.check()
