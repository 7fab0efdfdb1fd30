"""One family of each kind of attention, tiny and random: rows, magnitudes and masks against brute force.

`python benchmarks/families.py` does the same, and a training step, with all that transformers has.
"""

import pytest
from torch import nn
from transformers import CONFIG_MAPPING

from helpers.families import check_heads, check_magnitudes, check_masks, check_rows, tiny_model
from longact_trl.method.projections import find_projections
from longact_trl.models.reading import skeleton_of


KINDS = [
    "qwen3",  # separate projections, norms of heads
    "qwen2",  # biases
    "olmo2",  # norms over all heads
    "phi3",  # one matrix, in blocks
    "gpt_neox",  # one matrix, head by head
    "falcon",  # one key head behind all queries
    "falcon@new",  # groups of queries, each with its key and value
    "codegen",  # in four parts
    "gpt2",  # stored transposed
    "gpt_bigcode@all_heads",
    "mpt",
    "bert",  # other names
    "qwen3_next",  # gates between queries, recurrent layers beside attention
    "qwen3_5",  # a composite checkpoint
    "internvl",  # a vision tower with a `q_proj` of its own
    "bart",  # cross-attention
    "zamba2",  # one block in several layers
    "hrm_text",  # layers that run several times
    "deepseek_v3",  # latent
    "deepseek_v2@no_q_lora",
    "axk2",  # latent, with gates
    "longcat_flash",  # two in a layer
    "kimi_linear",  # latent and recurrent
    "gemma4_text",  # layers with another layer's K and V, heads of two sizes
    "gemma4_text@k_makes_v",
    "gpt_oss",  # sinks, experts
    "mimo_v2_flash",  # more key heads in some layers
    "minimax",  # lightning attention beside softmax attention
]


@pytest.mark.parametrize("family", KINDS)
def test_rows_magnitudes_and_masks(family):
    model = tiny_model(family)
    check_rows(model)
    check_heads(model)
    check_magnitudes(model)
    for row_sparse in ("off", "on"):
        check_masks(model, row_sparse)


def test_what_is_not_masked():
    gates = find_projections(tiny_model("qwen3_5"))[0]
    assert gates.kind == "q" and [part.start for part in gates.slices] == [0, 32, 64, 96]
    names = {p.name for p in find_projections(tiny_model("gemma4_text@k_makes_v"))}
    assert "model.layers.0.self_attn.k_proj" in names and "model.layers.1.self_attn.k_proj" not in names
    assert all("language_model" in p.name for p in find_projections(tiny_model("internvl")))
    assert not any("encoder_attn" in p.name for p in find_projections(tiny_model("bart")))


@pytest.mark.parametrize(
    "model_type, decoder",
    [
        ("florence2", "model.language_model.decoder.layers"),  # its text model has an encoder, too
        ("idefics", "model.layers"),  # a vision tower within the decoder
        ("pix2struct", "decoder.layer"),  # other names, cross-attention
    ],
)
def test_whose_attention_counts(model_type, decoder):
    names = {p.name for p in find_projections(skeleton_of(CONFIG_MAPPING[model_type]()))}
    assert all(name.startswith(decoder) and "encoder_decoder" not in name for name in names), names


def test_heads_of_unknown_size_say_so():
    class UnknownAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(8, 8) for _ in range(4))

    with pytest.raises(ValueError, match="how many channels a head has, and UnknownAttention has none of head_dim"):
        find_projections(nn.ModuleList([UnknownAttention()]))


class OwnAttention(nn.Module):
    """Custom code, with linear layers by these names."""

    def __init__(self, **sizes: int):
        super().__init__()
        self.head_dim = 8
        for name, rows in sizes.items():
            setattr(self, name, nn.Linear(16, rows))


@pytest.mark.parametrize(
    "attention, message",
    [
        (OwnAttention(query_key_value=48, dense=16), "0.query_key_value .*how custom code lays them out is not known"),
        (OwnAttention(query=16, key_value=32, dense=16), "0 .*has no key, and whether key_value makes keys"),
        (OwnAttention(q_proj=32, k_proj=16, v_proj=16, wo=16), "0.q_proj has 32 rows, and none of .* are Q's"),
    ],
)
def test_what_names_alone_do_not_tell_is_refused_in_custom_code(attention, message):
    with pytest.raises(ValueError, match=message):
        find_projections(nn.ModuleList([attention]))


def test_layers_without_attention_have_no_rows():
    class NoOpAttention(nn.Module):
        pass

    model = tiny_model("qwen3")
    model.model.layers[1].self_attn = NoOpAttention()
    assert {p.name.split(".")[2] for p in find_projections(model)} == {"0"}


@pytest.mark.parametrize("other", ["k_proj", "v_proj", "o_proj"])
def test_a_weight_that_something_else_reads_is_refused(other):
    model = tiny_model("llama@all_heads")
    attention = model.model.layers[1].self_attn
    name = "k_proj" if other == "v_proj" else "q_proj"
    getattr(attention, other).weight = getattr(attention, name).weight
    with pytest.raises(
        ValueError, match="layers.1.self_attn.(q|k)_proj is also that of .*layers.1.self_attn.[qkvo]_proj"
    ):
        find_projections(model)
    attention.q_proj.weight = model.model.layers[0].self_attn.q_proj.weight  # Q with Q is one mask
    getattr(attention, other).weight = nn.Parameter(attention.o_proj.weight.detach().clone())
    assert [len(p.modules) for p in find_projections(model)] == [2, 1, 1]


def test_one_block_in_several_layers_has_one_mask():
    query, key = find_projections(tiny_model("zamba2"))
    assert len(query.modules) == 2 and query.module.weight is query.tied[0].weight
    assert query.kind + key.kind == "qk"


@pytest.mark.parametrize(
    "family, message",
    [
        ("jetmoe", r"model.layers.0.self_attention \(JetMoeAttention\) takes its queries from experts"),
        ("rwkv", r"rwkv.blocks.0.attention \(RwkvSelfAttention\) is recurrent"),
        ("mamba2", "Mamba2ForCausalLM has no attention layer"),
    ],
)
def test_what_has_no_rows_of_queries_says_so(family, message):
    with pytest.raises(ValueError, match=message):
        find_projections(tiny_model(family))
