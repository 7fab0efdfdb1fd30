"""What of DeepSpeed is private and `update_rule="frozen_rows"` stands on: where each rank's first moments are."""

import pytest

from helpers.contracts import Contract


CONTRACTS = [
    Contract("deepspeed.utils.safe_get_local_optimizer_state", "(param, optim_state_key)", "ZeRO-3: this rank's part of a moment"),
    Contract("deepspeed.utils.safe_set_local_optimizer_state", "(param, value, optim_state_key)", "ZeRO-3: the same, cleared"),
    Contract("deepspeed.runtime.zero.stage3.DeepSpeedZeroOptimizer_Stage3", "sets ._z3_optimizer .grad_position .fp32_partitioned_groups_flat", "ZeRO-3: a parameter knows its optimizer, and that one its state"),
    Contract("deepspeed.runtime.zero.stage3.DeepSpeedZeroOptimizer_Stage3.get_param_id", "(param)", "ZeRO-3: key of `grad_position`"),
    Contract("deepspeed.runtime.zero.stage3.DeepSpeedZeroOptimizer_Stage3._get_param_partition_rank", "(param)", "ZeRO-3: which elements this rank has"),
    Contract("deepspeed.runtime.zero.stage3.DeepSpeedZeroOptimizer_Stage3._set_fp32_optimizer_param_groups", "reads self.fp32_partitioned_groups_flat[sub_group_id]", "ZeRO-3: the flat tensor is what the inner optimizer's state goes by"),
    Contract("deepspeed.runtime.zero.partition_parameters", "sets .ds_numel .ds_status", "ZeRO-3: size of the whole parameter; whether its weight is gathered"),
    Contract("deepspeed.runtime.zero.stage_1_and_2.DeepSpeedZeroOptimizer", "sets ._hp_optimizer_states_linked", "ZeRO-1/2: states are linked again for other parameter groups"),
    Contract("deepspeed.runtime.zero.stage_1_and_2.DeepSpeedZeroOptimizer._lazy_init_hp_params_optimizer_state", "()", "ZeRO-1/2: the same"),
    Contract("deepspeed.utils.mixed_precision_linkage", "sets ._hp_mapping", "ZeRO-1/2: a parameter's fragment of the flat buffer"),
    Contract("deepspeed.utils.tensor_fragment.tensor_fragment", "(lp_fragment, lp_fragment_address, hp_fragment, hp_fragment_address, gradient_dict, offload_gradient_dict, use_offload, param_group_index, optim_fragment)", "ZeRO-1/2: where the fragment begins, and whether states are linked"),
    Contract("deepspeed.utils.tensor_fragment.tensor_fragment.get_optim_state_keys", "()", "ZeRO-1/2: which moments there are"),
    Contract("deepspeed.utils.tensor_fragment.tensor_fragment.get_optim_state_fragment", "(key)", "ZeRO-1/2: the moments"),
    Contract("deepspeed.utils.tensor_fragment.fragment_address", "(numel, start)", "ZeRO-1/2: first element of the fragment"),
]  # fmt: skip


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.name}:{c.shape[:12]}")
def test_contract(contract):
    contract.check()
