"""What of accelerate is unexported and this package stands on."""

import pytest

from helpers.contracts import Contract


CONTRACTS = [
    Contract("accelerate.utils.is_peft_model", "(model)", "a wrapped model's decoder is found under PEFT's"),
    Contract("accelerate.utils.parse_flag_from_env", "(key, default)", "whether FSDP was launched, before a model is loaded"),
    Contract("accelerate.utils.broadcast_object_list", "(object_list, from_process)", "one rank asks the Hub, all learn its answer"),
    Contract("accelerate.utils.gather_object", "(object)", "groups move between ranks; ranks share an evaluation"),
    Contract("accelerate.optimizer.AcceleratedOptimizer.__init__", "sets .optimizer", "the optimizer behind the wrapper, and DeepSpeed's behind that"),
    Contract("accelerate.state.AcceleratorState", "has .deepspeed_plugin", "DeepSpeed's config, where an optimizer of its own may decay masked rows"),
    Contract("accelerate.utils.DeepSpeedPlugin", "sets .deepspeed_config", "the same"),
    Contract("accelerate.state.GradientState._set_sync_gradients", "(sync_gradients)", "micro-batches of one step run as within an accumulation"),
    Contract("accelerate.utils.launch", "reads \"ACCELERATE_USE_FSDP\" ... \"FSDP_VERSION\"", "FSDP1 is refused in the launched process"),
]  # fmt: skip


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.name}:{c.shape[:12]}")
def test_contract(contract):
    contract.check()
