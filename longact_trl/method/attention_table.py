"""What is known of attention layers by name: one line for each module, class or word that shapes do not explain."""

Layout = tuple[list[int], list[int], list[int]]
"""First rows of the heads of Q, of K and of V in a fused matrix, in heads from its top."""


def blocks(num_heads: int, num_kv_heads: int) -> Layout:
    """Q, then K, then V."""
    ends = num_heads, num_heads + num_kv_heads, num_heads + 2 * num_kv_heads
    return list(range(ends[0])), list(range(ends[0], ends[1])), list(range(ends[1], ends[2]))


def groups(num_heads: int, num_kv_heads: int) -> Layout:
    """For each key head: the queries that attend to it, the key, the value."""
    size = num_heads // num_kv_heads + 2
    firsts = range(0, size * num_kv_heads, size)
    queries = [first + i for first in firsts for i in range(size - 2)]
    return queries, [first + size - 2 for first in firsts], [first + size - 1 for first in firsts]


def quarters(num_heads: int, num_kv_heads: int) -> Layout:
    """Four parts, each of a quarter of Q, of V and of K."""
    share = num_heads // 4
    parts = [[3 * share * part + share * i + j for part in range(4) for j in range(share)] for i in range(3)]
    return parts[0], parts[2], parts[1]


SEPARATE = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),  # BERT and its like, as decoders
    ("query_proj", "key_proj", "value_proj"),  # ProphetNet
    ("q_lin", "k_lin", "v_lin"),  # XLM
    ("Wq", "Wk", "Wv"),  # CTRL
    ("project_q", "project_k", "project_v"),  # CPM-Ant
    ("q_b_proj", "k_proj", "v_proj"),  # DeepSeek-V4: `kv_proj` makes K and V at once
)
"""Names of the modules of Q, K and V where each has its own."""

OUTPUTS = ("o_proj", "out_proj", "dense", "Wo", "c_proj", "attention_out", "out_lin")
"""Names of the module that reads the heads. Its columns tell how many heads there are."""

HEAD_DIMS = ("head_dim", "attention_head_size", "head_size", "dim_head", "key_value_proj_dim")
"""What an attention calls the channels of a head."""

FUSED = {
    "qkv_proj": blocks,  # Phi-3, Phi-4
    "Wqkv": blocks,  # MPT, DBRX
    "c_attn": blocks,  # GPT, GPT-2
    "query_key_value": groups,  # GPT-NeoX, BLOOM, Persimmon, Falcon
    ("GPTBigCodeAttention", "c_attn"): groups,
    ("CodeGenAttention", "qkv_proj"): quarters,
}
"""How Q, K and V lie in one matrix: by the module's name, or by the attention's class and that name."""

GATED = {
    "Qwen3NextAttention",
    "Qwen3_5Attention",
    "Qwen3_5MoeAttention",
    "Qwen4ExpTextAttention",
}
"""Classes whose `q_proj` makes, for each head, its query and then the gate of its output."""

NO_QUERIES = {
    "JetMoeAttention": "takes its queries from experts, whose rows are not the same for all tokens",
    "XLNetRelativeAttention": "keeps its projections in bare parameters without a module",
    "LSHSelfAttention": "makes queries and keys of the same rows",
    "CpmAntAttention": "attends to tokens of its own before the prompt's, which Eq. 2 would count",
    "ProphetNetNgramSelfAttention": "attends in several streams, of which Eq. 2 would count one",
    "RwkvSelfAttention": "is recurrent and has no queries",
}
"""Classes that are refused, and why."""
