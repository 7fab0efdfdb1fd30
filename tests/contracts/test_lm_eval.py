"""What of lm-eval is unexported and evaluation stands on."""

import pytest

from helpers.contracts import Contract


CONTRACTS = [
    Contract("lm_eval.api.registry.get_model", "(model_name)", "lm-eval's own backends, by name"),
    Contract("lm_eval.api.instance.Instance", "(request_type, doc, arguments, idx, metadata, resps, filtered_resps, task_name, doc_id, repeats)", "a request knows the row that it is for"),
    Contract("lm_eval.api.model.LM", "has .generate_until .rank .world_size .apply_chat_template .tokenizer_name", "the journal answers in a model's place"),
]  # fmt: skip


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.name}:{c.shape[:12]}")
def test_contract(contract):
    contract.check()
