"""Tiny random models of every decoder family that transformers has: configurations with a few heads in few layers."""

import copy
import inspect

import torch
import transformers
from tiny_composites import COMPOSITES, HIDDEN, IMAGE_TOKENS, VISION, VISION_SPECIAL
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from longact_trl.models.reading import model_class_of


LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 2, 4, 2, 16, 64

SIZES = {
    **dict.fromkeys(["vocab_size", "type_vocab_size"], VOCAB),
    **dict.fromkeys(["hidden_size", "d_model", "n_embd", "emb_dim", "embedding_size", "word_embed_proj_dim"], HIDDEN),
    **dict.fromkeys(["input_embedding_size", "output_embedding_size", "attention_hidden_size"], HIDDEN),
    **dict.fromkeys(["intermediate_size", "ffn_dim", "n_inner", "dff", "dim_ff", "d_inner"], 96),
    **dict.fromkeys(["decoder_ffn_dim", "encoder_ffn_dim", "ffn_hidden_size", "intermediate_size_mlp"], 96),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"], LAYERS),
    **dict.fromkeys(["encoder_layers", "num_decoder_layers", "num_encoder_layers"], LAYERS),
    **dict.fromkeys(["num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"], HEADS),
    **dict.fromkeys(["decoder_attention_heads", "encoder_attention_heads"], HEADS),
    **dict.fromkeys(["num_decoder_attention_heads", "num_encoder_attention_heads"], HEADS),
    **dict.fromkeys(["num_key_value_heads", "swa_num_key_value_heads"], KV_HEADS),
    **dict.fromkeys(["head_dim", "swa_head_dim", "v_head_dim", "dim_head", "kv_channels"], HEAD_DIM),
    **dict.fromkeys(["max_position_embeddings", "n_positions", "max_seq_len", "context_length"], 256),
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"], 4),
    **dict.fromkeys(["num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts"], 2),
    **dict.fromkeys(["n_shared_experts", "num_shared_experts", "n_group", "topk_group", "first_k_dense_replace"], 1),
    **dict.fromkeys(["moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"], 32),
    **dict.fromkeys(["expert_ffn_hidden_size", "moe_shared_expert_intermediate_size"], 32),
    **dict.fromkeys(["q_lora_rank", "kv_lora_rank", "adapter_rank", "o_lora_rank", "hc_lowrank"], 16),
    **dict.fromkeys(["index_head_dim", "indexer_head_dim", "router_hidden_size"], 16),
    **dict.fromkeys(["qk_rope_head_dim", "index_topk", "rotary_dim", "sliding_window", "local_attention"], 8),
    **dict.fromkeys(["sliding_window_size", "attention_window_size", "window_size", "attention_chunk_size"], 8),
    **dict.fromkeys(["keep_window_size", "block_size", "state_size", "ssm_state_size", "mamba_d_state"], 8),
    **dict.fromkeys(["linear_num_key_heads", "index_n_heads", "indexer_n_heads", "o_groups"], 2),
    **dict.fromkeys(["linear_num_value_heads", "linear_num_heads", "swa_num_attention_heads", "mamba_num_heads"], 4),
    **dict.fromkeys(["linear_key_head_dim", "linear_value_head_dim", "linear_head_dim", "mamba_head_dim"], HEAD_DIM),
    **dict.fromkeys(["mamba_n_groups", "n_groups", "mamba_ngroups"], 1),
    **dict.fromkeys(["mamba_dt_rank", "time_step_rank", "laurel_rank", "d_rel", "index_block_size"], 4),
    **dict.fromkeys(["mamba_chunk_size", "chunk_size", "block_multiple_of", "hidden_size_per_layer_input"], 16),
    "pad_token_id": 0,
    **dict.fromkeys(["dropout", "hidden_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob"], 0.0),
    **dict.fromkeys(["embd_pdrop", "resid_pdrop", "attn_pdrop", "attention_dropout"], 0.0),
    **dict.fromkeys(["activation_dropout", "residual_dropout", "local_attention_probs_dropout_prob"], 0.0),
    **dict.fromkeys(["use_mamba_kernels", "use_mambapy"], False),
    "qk_nope_head_dim": 16, "bos_token_id": 1, "eos_token_id": 2, "is_decoder": True, "rel_extent": 16,
    "mamba_n_heads": 4, "mamba_d_head": 32, "vocab_size_per_layer_input": VOCAB, "zero_expert_num": 2,
    "indexer_kv_heads": 1, "indexer_budget": 8, "indexer_compress_ratio": 2, "index_topk_blocks": 2,
}  # fmt: skip
"""By the name of a field, wherever a configuration has it."""

MLA = {"num_key_value_heads": HEADS, "head_dim": 8}
FOUR = {"num_hidden_layers": 4}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
HALF_MAMBA = {"num_hidden_layers": 3, "mamba_n_heads": 8, "mamba_d_head": 16}
LINEAR = {"layer_types": ["linear_attention", "full_attention"] * 2, **FOUR}
SHORT_ROPE = {"rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
GEMMA_N = {"num_hidden_layers": 6, "layer_types": ["sliding_attention", "full_attention"] * 3}

SPECIAL: dict[str, dict] = {
    **dict.fromkeys(["axk1", "axk2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa"], MLA),
    **dict.fromkeys(["minicpm3", "youtu", "hy_v4", "mistral4"], MLA),
    **dict.fromkeys(["afmoe", "cohere2", "cohere2_moe", "cwm", "exaone4", "exaone_moe", "granite_swa"], FOUR),
    **dict.fromkeys(["granitemoe_swa", "laguna", "llama4_text", "mellum", "mimo_v2_flash", "ministral"], FOUR),
    **dict.fromkeys(["modernbert-decoder", "deepseek_v4", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"], FOUR),
    **dict.fromkeys(["inkling_text", "olmo3", "olmo_hybrid", "smollm3", "step3p7", "muse_glimmer"], FOUR),
    "zaya": {**FOUR, "num_experts_per_tok": 1},
    "bamba": {**HALF_MAMBA, "attn_layer_indices": [1]},
    "bart": {"d_model": HIDDEN},
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "cohere_compass_text": {
        **FOUR,
        "rope_parameters": dict.fromkeys(
            ["full_attention", "sliding_attention"],
            {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]},
        ),
    },
    "cpmant": {"prompt_length": 4, "prompt_types": 32, "segment_types": 32},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {**MLA, "topk_method": "greedy"},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
    "gemma": {"num_key_value_heads": 1},
    "gemma3_text": {"num_hidden_layers": 6},
    "gemma3": {"num_hidden_layers": 6},
    "gemma3n_text": {**GEMMA_N, "num_kv_shared_layers": 2, "laurel_rank": 8, "activation_sparsity_pattern": [0.0] * 6},
    "gemma4_text": {**GEMMA_N, "num_kv_shared_layers": 2, "global_head_dim": 32},
    "gemma4": {**GEMMA_N, "num_kv_shared_layers": 2, "global_head_dim": 32},
    "gemma4_unified_text": {**GEMMA_N, "global_head_dim": 32},
    "gemma4_unified": {**GEMMA_N, "global_head_dim": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {**HALF_MAMBA, "layer_types": ["mamba", "attention", "mamba"]},
    "jamba": {**FOUR, "attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {**LINEAR, "num_key_value_heads": HEADS},
    "kimi_k25": MLA,
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2, **FOUR},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, **FOUR},
    "llama4": FOUR,
    "longcat_flash": {**MLA, "qk_head_dim": 24},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "minicpm3": {**MLA, "dim_model_base": 64},
    "minimax": FOUR,
    "minimax_m3_vl_text": {**FOUR, "dense_intermediate_size": 96},
    "minimax_m3_vl": {**FOUR, "dense_intermediate_size": 96},
    "mistral": {"sliding_window": None},
    "mllama": {"num_hidden_layers": 3, "cross_attention_layers": [1]},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "moe", "attention"]},
    "phi3": {"sliding_window": None},
    **dict.fromkeys(["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v"], MROPE),
    "ernie4_5_vl_moe": {
        "moe_intermediate_size": [32, 32], "rope_parameters": MROPE["rope_parameters"] | {"mrope_section": [3, 3, 2]},
    },
    "glm46v": {"rope_parameters": MROPE["rope_parameters"] | {"partial_rotary_factor": 1.0}},
    "glm4v_moe": {"rope_parameters": MROPE["rope_parameters"] | {"partial_rotary_factor": 1.0}},
    **dict.fromkeys(["qwen3_5", "qwen3_5_moe"], FOUR),
    **dict.fromkeys(["qwen4_exp_text", "qwen4_exp"], {
        **FOUR, "ngram_vocab_size_base": 100, "split_ngram_parts": 2, "make_ngram_vocab_size_divisible_by": 8,
    }),
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "attn_layers": ["local", "local"], "attention_head_size": 16, "axial_pos_shape": (16, 16),
        "axial_pos_embds_dim": (32, 32), "feed_forward_size": 96, "local_attn_chunk_length": 8,
    },
    "roc_bert": {"pronunciation_embed_dim": 16, "shape_embed_dim": 16, "pronunciation_vocab_size": 64,
                 "shape_vocab_size": 64},
    "xlm": {"causal": True, "asm": False},
    "xlstm": {"mode": "train", "embedding_dim": 64},
    "xmod": {"default_language": "en_XX"},
    "zamba": {**FOUR, "attn_layer_period": 2, "attn_layer_offset": 1, "n_mamba_heads": 2, "attention_hidden_size": 128,
              "attention_head_dim": 32, "layers_block_type": ["mamba", "hybrid"] * 2, "mamba_d_conv": 4},
    "zamba2": {**FOUR, "layers_block_type": ["mamba", "hybrid"] * 2, "n_mamba_heads": 8, "mamba_headdim": 16},
}  # fmt: skip
"""What a family needs beside, or instead."""

VARIANTS: dict[str, dict] = {
    "deepseek_v2@no_q_lora": {"q_lora_rank": None},
    "deepseek_v3@no_q_lora": {"q_lora_rank": None},
    "falcon@alibi": {"alibi": True},
    "deepseek_v3@bias": {"attention_bias": True, "rope_interleave": False},
    "falcon@all_heads": {"multi_query": False},
    "falcon@sequential": {"parallel_attn": False, "bias": True},
    "falcon@new": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "gemma3n_text@no_shared_kv": {"num_kv_shared_layers": 0},
    "gemma4_text@k_makes_v": {
        "num_kv_shared_layers": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 1,
    },
    "gpt_bigcode@all_heads": {"multi_query": False},
    "gemma4_text@one_global_key": {"num_kv_shared_layers": 0, "attention_k_eq_v": False,
                                   "num_global_key_value_heads": 1},
    "gemma4_text@experts": {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2},
    "gemma2@no_caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    "gpt_oss@full": {"layer_types": ["full_attention"] * 2},
    "gpt_oss@no_bias": {"attention_bias": False},
    "gpt_neox@sequential": {"use_parallel_residual": False, "attention_bias": False},
    "gpt2@cross": {"add_cross_attention": True, "scale_attn_by_inverse_layer_idx": True},
    "bert@cross": {"add_cross_attention": True},
    "glm4_moe@qk_norm": {"use_qk_norm": True},
    "glm@quarter_rope": {"partial_rotary_factor": 0.25, "attention_bias": False},
    "granite@scales": {"attention_multiplier": 0.1, "logits_scaling": 4.0, "residual_multiplier": 0.5,
                       "embedding_multiplier": 3.0},
    "llama@all_heads": {"num_key_value_heads": HEADS, "tie_word_embeddings": True},
    "llama@one_key": {"num_key_value_heads": 1, "head_dim": 24},
    "cohere@qk_norm": {"use_qk_norm": True},
    "opt@post_norm": {"do_layer_norm_before": False, "word_embed_proj_dim": 32},
    "persimmon@no_qk_norm": {"qk_layernorm": False},
    "phi@qk_norm": {"qk_layernorm": True},
    "qwen3_next@full": {"layer_types": ["full_attention"] * 4, "attention_bias": True},
    "smollm3@no_rope": {"no_rope_layers": [0, 1, 0, 1]},
    "stablelm@qk_norm": {"qk_layernorm": True, "use_qkv_bias": True, "use_parallel_residual": True},
    "zamba2@adapters": {"use_shared_attention_adapter": True, "attention_hidden_size": 128, "attention_head_dim": 32},
    "zamba2@rope": {"use_mem_rope": True},
    "llama@bias": {"attention_bias": True, "mlp_bias": True},
    "llama@dynamic": {"max_position_embeddings": 24, "rope_parameters": {"rope_type": "dynamic", **SHORT_ROPE}},
    "llama@yarn": {"rope_parameters": {"rope_type": "yarn", **SHORT_ROPE}},
    "minimax_m3_vl_text@sparse": {"layer_types": ["full_attention", "minimax_m3_sparse"] * 2},
    "mistral@sliding": {"sliding_window": 8},
    "olmo@clip": {"clip_qkv": 0.5},
    "phi3@longrope": {
        "original_max_position_embeddings": 24,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8,
                            "long_factor": [4.0] * 8, "original_max_position_embeddings": 24},
    },
    "qwen3@sliding": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
}  # fmt: skip
"""Families of which one checkpoint differs from another in kind."""

UNNAMED = {"global_head_dim", "num_global_key_value_heads", "per_layer_config"}
"""Fields of which a configuration's signature says nothing."""

NO_DECODERS = {
    "blt", "emu3", "fuyu", "gemma3n", "gemma4_assistant", "gemma4_unified_assistant", "glm5_next", "got_ocr2",
    "musicgen", "musicgen_melody",
}  # fmt: skip
"""Not built here: byte models and parts of larger ones, or in need of a library that is not a dependency."""

FAMILIES = [
    name
    for name in dict.fromkeys([*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "mistral4", *COMPOSITES, *VARIANTS])
    if name not in NO_DECODERS
]


def tiny_config(family: str) -> "transformers.PretrainedConfig":
    """A configuration by the name of a family, `"qwen3"`, or of a variant, `"falcon@new"`."""
    base = family.partition("@")[0]
    config_class = CONFIG_MAPPING[base]
    special = copy.deepcopy({**SPECIAL.get(base, {}), **VARIANTS.get(family, {})})
    if base == "phi4_multimodal":
        return _phi4_multimodal(config_class)
    if base not in COMPOSITES:
        return config_class(**_filled(config_class, SIZES, special))
    parts = {}
    for name in config_class.sub_configs:
        part = config_class.sub_configs[name]
        if not hasattr(part, "attribute_map"):  # an AutoConfig
            part = type(getattr(config_class(), name))
        if name == "text_config":
            parts[name] = part(**_filled(part, SIZES, {**SPECIAL.get(part.model_type, {}), **special}))
        elif "vision" in name:
            parts[name] = part(**_filled(part, VISION, VISION_SPECIAL.get(base, {})))
    config = config_class(**_filled(config_class, IMAGE_TOKENS, parts))
    config.architectures = [MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[base]]
    if "vision_config" in parts and base == "gemma3":
        config.vision_config.vision_use_head = False
    return config


def _filled(config_class: type, sizes: dict, special: dict) -> dict:
    aliases = getattr(config_class, "attribute_map", None) or {}
    fields = set(inspect.signature(config_class.__init__).parameters) | set(aliases)
    chosen = {}
    for name, value in sizes.items():
        if name in fields:
            chosen.setdefault(aliases.get(name, name), value)
    fields |= UNNAMED
    return chosen | {aliases.get(name, name): value for name, value in special.items() if name in fields}


def _phi4_multimodal(config_class: type) -> "transformers.PretrainedConfig":
    from transformers.models.phi4_multimodal import configuration_phi4_multimodal as phi4

    small = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    vision = phi4.Phi4MultimodalVisionConfig(**small, num_hidden_layers=1, image_size=16, crop_size=16, patch_size=8)
    audio = phi4.Phi4MultimodalAudioConfig(
        **small, num_blocks=1, ext_pw_out_channel=32, depthwise_separable_out_channel=32, nemo_conv_channels=32,
        input_size=16,
    )  # fmt: skip
    sizes = {**_filled(config_class, SIZES, {}), "sliding_window": None}
    return config_class(**sizes, vision_config=vision, audio_config=audio)


@torch.no_grad()
def tiny_model(family: str, seed: int = 0) -> PreTrainedModel:
    """
    A random model in float32, as large in its weights that attention, gates and sinks show.

    Args:
        family (`str`):
            Name of a family or variant.
        seed (`int`, *optional*, defaults to `0`):
            Of the weights.

    Returns:
        `PreTrainedModel`: In evaluation mode.
    """
    torch.manual_seed(seed)
    config = tiny_config(family)
    model = model_class_of(config)(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    for name, param in model.named_parameters():
        if param.dim() >= 2:
            param.normal_(0, 0.12, generator=generator)
        elif ("norm" not in name.lower() and "ln_" not in name) or name.endswith("temp"):
            param.add_(torch.randn(param.shape, generator=generator) * 0.1)
    return model
