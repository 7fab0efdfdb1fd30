"""What of transformers is private or unexported and this package stands on."""

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from helpers.contracts import Contract
from helpers.models import make_model


CONTRACTS = [
    Contract("transformers.Trainer._save_checkpoint", "reads self._save_optimizer_and_scheduler( ... self._save_rng_state( ... self.state.save_to_json(", "`trainer_state.json` comes last, so a checkpoint that has it is complete"),
    Contract("transformers.Trainer._save_rng_state", "(output_dir)", "masks, rollouts and sampling state are written with it, on every rank"),
    Contract("transformers.Trainer._load_rng_state", "(checkpoint)", "an unreadable file is named"),
    Contract("transformers.Trainer._load_from_checkpoint", "(resume_from_checkpoint, model)", "an unreadable file is named; dtypes are kept; weights saved by other names are read"),
    Contract("transformers.Trainer._load_best_model", "()", "the best adapter is the one that learned, whatever its name; weights saved by other names are read"),
    Contract("transformers.Trainer._load_optimizer_and_scheduler", "(checkpoint)", "TRL's override calls it"),
    Contract("transformers.Trainer._get_grad_norm", "(model, grad_norm)", "a gradient that is not finite stops the run before it reaches a weight"),
    Contract("transformers.Trainer._remove_unused_columns", "(dataset, description)", "replacement prompts have the columns that TRL would give them"),
    Contract("transformers.Trainer._push_from_checkpoint", "(checkpoint_folder)", "a push in the background that fails is told"),
    Contract("transformers.Trainer._finish_current_push", "()", "a push waits for the one before it"),
    Contract("transformers.Trainer.init_hf_repo", "(token, …)", "the repository is created with patience, and a refusal stops every rank"),
    Contract("transformers.Trainer.push_to_hub", "(commit_message, blocking, token, revision, …)", "saved before the Hub is asked, pushed with patience"),
    Contract("transformers.Trainer.get_decay_parameter_names", "(model)", "masked projections do not decay"),
    Contract("transformers.Trainer.train", "(resume_from_checkpoint, trial, ignore_keys_for_eval)", "`\"auto\"` is resolved before it"),
    Contract("transformers.Trainer", "sets .push_in_progress .hub_model_id .optimizer_cls_and_kwargs .is_deepspeed_enabled", "pushes in the background, and whose optimizer it is"),
    Contract("transformers.utils.hub.PushInProgress", "has .is_done", "the card does not change while it is being sent"),
    Contract("transformers.utils.hub.PushInProgress.__init__", "sets .jobs", "which pushes a save has started"),
    Contract("transformers.trainer.TRAINER_STATE_NAME", "= 'trainer_state.json'", "the file that completes a checkpoint"),
    Contract("transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS", "has .__getitem__ .__setitem__ .__delitem__ ._local_mapping", "the function behind an attention's name; packed attention calls it by that name"),
    Contract("transformers.masking_utils.ALL_MASK_ATTENTION_FUNCTIONS", "has .__getitem__ .register", "the mask that belongs to an attention's name"),
    Contract("transformers.AttentionInterface.register", "(key, value)", "packed attention is registered under a name of its own"),
    Contract("transformers.AttentionMaskInterface.register", "(key, value)", "its mask, too"),
    Contract("transformers.PreTrainedModel", "has ._supports_attention_backend ._supports_sdpa", "whether a model takes its attention by name"),
    Contract("transformers.PretrainedConfig", "has ._attn_implementation .get_text_config", "which attention a model runs with; the text part of a composite model"),
    Contract("transformers.modeling_outputs.BaseModelOutput", "(last_hidden_state, hidden_states, attentions)", "prefixes are taken out of `last_hidden_state` before the head"),
    Contract("transformers.TrainingArguments", "sets .fsdp_plugin_args", "FSDP1 is refused before a model is loaded"),
    Contract("transformers.conversion_mapping.get_model_conversion_mapping", "(model, …)", "what weights are called in a checkpoint's files, for `longact drift`"),
    Contract("transformers.core_model_loading.rename_source_key", "(source_key, weight_renamings, weight_converters, …)", "the same"),
    Contract("transformers.modeling_utils.set_zero3_state", "()", "parts of a composite model are built without weights under ZeRO-3, too"),
    Contract("transformers.core_model_loading.WeightRenaming", "(source_patterns, target_patterns)", "the same"),
    Contract("transformers.core_model_loading.WeightConverter", "(source_patterns, target_patterns, operations, …)", "weights that files hold together with others"),
    Contract("transformers.utils.find_adapter_config_file", "(model_id, …)", "whether what is evaluated is an adapter"),
    Contract("transformers.utils.is_kernels_available", "(MIN_VERSION, …)", "whether `longact check` may promise an attention of the Hub's kernels"),
]  # fmt: skip


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.name}:{c.shape[:12]}")
def test_contract(contract):
    contract.check()


def test_an_attention_that_is_put_before_another_gives_way_again():
    """`longact inspect --after-rope` wraps the function behind a name and deletes the wrapper afterwards."""
    usual = ALL_ATTENTION_FUNCTIONS["sdpa"]
    ALL_ATTENTION_FUNCTIONS["sdpa"] = wrapper = lambda *args, **kwargs: usual(*args, **kwargs)
    try:
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is wrapper
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is usual


def test_a_decoder_passes_on_what_it_does_not_know():
    """`shared_prefix` goes through the model to its attention, and a mask of four dimensions is left alone."""
    model, seen = make_model(), []
    usual = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attention(module, query, key, value, attention_mask, **kwargs):
        seen.append((kwargs.pop("shared_prefix"), attention_mask.shape))
        return usual(module, query, key, value, None, **kwargs)

    ALL_ATTENTION_FUNCTIONS["sdpa"] = attention
    try:
        model(input_ids=torch.ones(1, 3, dtype=torch.long), attention_mask=torch.empty(0, 0, 0, 0), shared_prefix="x")
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert seen == [("x", (0, 0, 0, 0))] * 2


def test_a_checkpoint_is_complete_with_the_file_that_trainer_writes_last():
    """`training/checkpoints.py` names it without importing transformers."""
    from transformers.trainer import TRAINER_STATE_NAME as theirs

    from longact_trl.training.checkpoints import TRAINER_STATE_NAME as ours

    assert ours == theirs
