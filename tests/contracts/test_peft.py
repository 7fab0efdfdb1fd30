"""What of PEFT is unexported and this package stands on."""

import pytest
from peft import get_peft_model_state_dict

from helpers.contracts import Contract
from helpers.gradients import lora


CONTRACTS = [
    Contract("peft.tuners.tuners_utils.BaseTunerLayer", "has .disable_adapters .active_adapters", "whether a pass is the reference's: adapters off, or TRL's copy `ref` active"),
    Contract("peft.PeftModel", "has .get_base_model", "the decoder under an adapter"),
]  # fmt: skip


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.name}:{c.shape[:12]}")
def test_contract(contract):
    contract.check()


def test_names_of_an_adapters_parameters():
    """Rows are those of `lora_B` and `lora_magnitude_vector`; `lora_A` belongs to no row."""
    model = lora(use_dora=True)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    trained = [name for name, param in layer.named_parameters() if param.requires_grad]
    assert trained == [f"lora_{part}.default.weight" for part in ("A", "B", "magnitude_vector")]
    assert layer.active_adapters == ["default"] and layer.disable_adapters is False
    with model.disable_adapter():
        assert layer.disable_adapters is True
    assert all(name.startswith("base_model.model.model.layers.") for name in get_peft_model_state_dict(model))
