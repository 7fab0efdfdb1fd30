"""Models that read images, too: which there are, and the sizes of their tiny vision towers."""

HIDDEN = 64
"""Of the text decoders."""
VISION = {
    "hidden_size": 32, "embed_dim": 32, "intermediate_size": 32, "num_hidden_layers": 1, "depth": 1, "num_heads": 2,
    "num_attention_heads": 2, "image_size": 16, "patch_size": 8, "out_hidden_size": HIDDEN, "mlp_ratio": 2,
    "num_position_embeddings": 16, "fullatt_block_indexes": [0], "window_size": 16, "deepstack_visual_indexes": [0],
    "vision_output_dim": 32,
    "num_global_layers": 1, "max_num_tiles": 4, "intermediate_layers_indices": [0],
    "projector_input_dim": 32, "projector_output_dim": 32, "vision_use_head": False,
}  # fmt: skip
VISION_SPECIAL = {
    "internvl": {"image_size": [16, 16], "patch_size": [8, 8]},
    "ovis2": {"vocab_size": 64},
    "step3p7": {"mlp_ratio": 2.0},
    "muse_glimmer": {"patch_temporal_size": 1},
}
IMAGE_TOKENS = {
    "image_token_id": 63, "image_token_index": 63, "video_token_id": 62, "boi_token_index": 62,
    "vision_start_token_id": 61, "eoi_token_index": 61, "vision_end_token_id": 60, "mm_tokens_per_image": 4,
}  # fmt: skip

COMPOSITES = [
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen4_exp", "mistral3", "llama4",
    "glm4v", "glm4v_moe", "internvl", "exaone4_5", "kimi_k25", "minimax_m3_vl", "step3p7", "muse_glimmer", "gemma3",
    "gemma4", "gemma4_unified", "mllama", "llava", "llava_next", "paligemma", "smolvlm", "aya_vision",
    "cohere2_vision", "lfm2_vl", "glm46v", "ernie4_5_vl_moe", "lighton_ocr", "minicpmv4_6", "ovis2", "idefics2",
]  # fmt: skip
"""Whose published checkpoints hold a vision tower beside the text decoder."""
