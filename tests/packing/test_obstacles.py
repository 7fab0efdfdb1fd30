"""Which models and settings share prompts, and why others do not: before weights are loaded."""

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import (
    BambaConfig,
    DbrxConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    Gemma4TextConfig,
    GptOssConfig,
    HrmTextConfig,
    LlamaConfig,
    MambaConfig,
    MiniMaxConfig,
    MistralConfig,
    NemotronConfig,
    NemotronHConfig,
    OPTConfig,
    PhimoeConfig,
    Qwen3_5Config,
    Qwen3Config,
    Qwen3MoeConfig,
    Qwen4ExpConfig,
    Starcoder2Config,
    Zamba2Config,
)

from helpers.models import make_model
from helpers.trainers import make_args, make_prompts, make_trainer, spread_reward
from longact_trl import LongActConfig, LongActTrainer
from longact_trl.packing.obstacles import check_shared_prefix, dropouts, shares_prefixes


@pytest.mark.parametrize(
    "config, settings, message",
    [
        (LlamaConfig(), {"policy_loss": "kl_cov", "num_iterations": 2}, "has a kink at zero"),
        (LlamaConfig(), {"neftune_noise_alpha": 5.0}, "adds noise to embeddings by a row's length"),
        (LlamaConfig(), {"model_init_kwargs": {"attn_implementation": "eager"}}, "Write 'sdpa'"),
        (LlamaConfig(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}), {}, "'dynamic'"),
        (HrmTextConfig(), {}, "layers attend several times"),
        (LlamaConfig(attention_dropout=0.1), {}, "`attention_dropout`=0.1"),
        (DbrxConfig(attn_config={"attn_pdrop": 0.1}), {}, "`attn_config.attn_pdrop`=0.1"),
        (PhimoeConfig(router_jitter_noise=0.0, input_jitter_noise=0.1), {}, "`input_jitter_noise`, which other rows"),
        (BambaConfig(mamba_proj_bias=True), {}, "`mamba_proj_bias`, by which recurrent layers start from"),
        (MiniMaxConfig(layer_types=["linear_attention", "full_attention"] * 16), {}, "has layers of linear_attention"),
        (Zamba2Config(), {}, "layers attend several times"),
        (Qwen4ExpConfig(), {}, "has layers of (qwen_sparse|indexed)_attention"),
        (MambaConfig(), {}, "does not take its attention function"),
        (OPTConfig(), {}, "has no rotary positions"),
        (NemotronConfig(), {}, "reads its attention mask itself"),
        (PhimoeConfig(router_jitter_noise=0.0), {}, "draw their experts"),
        (DbrxConfig(ffn_config={"moe_jitter_eps": 0.01}), {}, "`ffn_config.moe_jitter_eps`, which other rows would"),
        (Gemma3TextConfig(use_bidirectional_attention=True), {}, "lets tokens attend to later ones"),
        (Gemma4TextConfig(use_bidirectional_attention="all"), {}, "lets tokens attend to later ones"),
        (Qwen3Config(is_causal=False), {}, "lets tokens attend to later ones"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_it_refuses(tmp_path, config, settings, message):
    on, auto = (make_args(tmp_path, shared_prefix=mode, **settings) for mode in ("on", "auto"))
    with pytest.raises(ValueError, match=f"`shared_prefix='on'` cannot work: .*{message}"):
        check_shared_prefix(config, on)
    check_shared_prefix(config, auto)
    assert not shares_prefixes(config, auto)


@pytest.mark.parametrize(
    "adapter, message",
    [
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "PromptTuningConfig puts tokens of its own"),
        (PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "PrefixTuningConfig puts tokens of its own"),
        (LoraConfig(target_modules=["q_proj", "k_proj"], alora_invocation_tokens=[5]), "`alora_invocation_tokens`"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_adapters_that_read_whole_rows(tmp_path, adapter, message):
    """Gradients would be others without a word."""
    model = get_peft_model(make_model(), adapter)
    on, auto = (make_args(tmp_path, shared_prefix=mode) for mode in ("on", "auto"))
    for known in ({"adapter": adapter}, {"model": model}):
        with pytest.raises(ValueError, match=f"`shared_prefix='on'` cannot work: .*{message}"):
            check_shared_prefix(model.config, on, **known)
    assert not shares_prefixes(model.config, auto, model)


def test_what_a_model_drops_by_calling_the_function(tmp_path):
    """Its prefixes then run again with what they drew, as behind `nn.Dropout`."""
    config = Starcoder2Config(residual_dropout=0.1, embedding_dropout=0.2, classifier_dropout_prob=0.3)
    assert dropouts(config) == {"residual_dropout": 0.1, "embedding_dropout": 0.2}
    assert dropouts(DbrxConfig(attn_config={"attn_pdrop": 0.1})) == {"attn_config.attn_pdrop": 0.1}
    assert not dropouts(LlamaConfig())
    model = make_model()
    assert not make_trainer(tmp_path, model)._drops
    model.config.residual_dropout = 0.1
    assert make_trainer(tmp_path, model)._drops


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(),
        Qwen3Config(),
        MistralConfig(),
        Gemma2Config(),
        GptOssConfig(),
        Qwen3MoeConfig(),
        Gemma3Config(),  # also reads images
        Qwen3_5Config(),  # and is recurrent
        NemotronHConfig(),  # without rotary positions
    ],
)
def test_what_it_takes(tmp_path, config):
    assert shares_prefixes(config, make_args(tmp_path, shared_prefix="on"))
    assert not shares_prefixes(config, make_args(tmp_path, shared_prefix="off"))


def test_what_has_not_run_on_a_gpu_is_for_those_who_ask(tmp_path, monkeypatch):
    """FlexAttention, and the kernels of recurrences."""
    on, auto = (make_args(tmp_path, shared_prefix=mode) for mode in ("on", "auto"))
    monkeypatch.setattr(LongActConfig, "device", property(lambda self: torch.device("cuda")))
    for args in (on, auto):
        args.bf16 = True
        assert shares_prefixes(Qwen3Config(), args)
    for config in (Gemma2Config(), GptOssConfig(), Qwen3_5Config(), NemotronHConfig()):
        assert shares_prefixes(config, on) and not shares_prefixes(config, auto)
    auto.prefix_offload = True
    with pytest.raises(ValueError, match="write `shared_prefix: 'on'` to be the first"):
        check_shared_prefix(GptOssConfig(), auto)


def test_a_load_balancing_loss_needs_whole_prompts(tmp_path):
    with pytest.raises(ValueError, match="`prefix_chunk_size=8` cannot work: a load-balancing loss"):
        check_shared_prefix(Qwen3MoeConfig(), make_args(tmp_path, prefix_chunk_size=8))
    assert shares_prefixes(Qwen3MoeConfig(), make_args(tmp_path, prefix_chunk_size=8, router_aux_loss_coef=0.0))


def test_it_refuses_a_rank_with_one_completion(tmp_path):
    args = make_args(tmp_path, shared_prefix="on")
    args.per_device_train_batch_size = args.steps_per_generation = 1  # as on 4 ranks
    with pytest.raises(ValueError, match="no two of a prompt meet"):
        check_shared_prefix(LlamaConfig(), args)
    args.prefix_chunk_size = 512
    assert shares_prefixes(LlamaConfig(), args)


def test_it_refuses_before_weights_are_loaded(tmp_path, no_weights):
    with pytest.raises(ValueError, match="`shared_prefix='on'` cannot work"):
        LongActTrainer(
            str(no_weights),
            spread_reward,
            make_args(tmp_path, shared_prefix="on", model_init_kwargs={"attn_implementation": "eager"}),
            make_prompts(),
        )
    with pytest.raises(ValueError, match="PromptTuningConfig puts tokens of its own before a row"):
        LongActTrainer(
            str(no_weights),
            spread_reward,
            make_args(tmp_path, shared_prefix="on", strategy="dense"),
            make_prompts(),
            peft_config=PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
        )
    with pytest.raises(ValueError, match="Unknown `shared_prefix` 'yes'. Write one of 'auto', 'on', 'off'"):
        LongActConfig(str(tmp_path), shared_prefix="yes")
