import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

from helpers.allocations import Allocations
from helpers.models import make_decoder, make_model
from helpers.weights import assert_no_hooks
from longact_trl import measure_magnitudes
from longact_trl.analysis.inspect.activations import check_site, measure_text
from longact_trl.method.magnitude import CHUNK_TOKENS
from longact_trl.method.projections import find_projections


KINDS = ("q", "k", "v")


def make_ids(length: int) -> torch.Tensor:
    return torch.randint(1, 48, (length,), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("model_type", ["qwen3", "llama", "phi3"])
def test_magnitudes_are_those_of_training_to_the_bit(model_type, dtype):
    model, ids = make_decoder(model_type).to(dtype), make_ids(CHUNK_TOKENS + 65)
    batch = {"input_ids": ids[None], "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    expected = measure_magnitudes(model, batch, KINDS)
    measured = measure_text(model, ids, find_projections(model, KINDS))[len(ids)]
    assert list(measured) == list(expected)
    for name, magnitude in measured.items():
        assert torch.equal(magnitude, expected[name]), name
    assert_no_hooks(model)


@pytest.mark.parametrize("site", ["projection", "norm", "rope"])
def test_a_beginning_is_measured_as_a_text_of_its_own(site):
    model, ids = make_decoder("qwen3"), make_ids(CHUNK_TOKENS + 90)
    projections = find_projections(model, KINDS)
    measured = measure_text(model, ids, projections, [40, CHUNK_TOKENS + 1], site)
    assert list(measured) == [40, CHUNK_TOKENS + 1, len(ids)]
    for length, named in measured.items():
        alone = measure_text(model, ids[:length], projections, site=site)[length]
        for name, magnitude in named.items():
            torch.testing.assert_close(magnitude, alone[name], rtol=1e-5, atol=0)


def test_after_norm_and_rotation_against_the_model_by_hand():
    model, ids = make_decoder("qwen3", num_hidden_layers=1), make_ids(50)
    projections = find_projections(model, KINDS)
    with torch.no_grad():
        for p in projections[:2]:  # a norm that scales its channels
            norm = getattr(model.model.layers[0].self_attn, f"{p.kind}_norm")
            norm.weight.copy_(torch.rand(16, generator=torch.Generator().manual_seed(1)) + 0.5)
        layer = model.model.layers[0]
        hidden = layer.input_layernorm(model.model.embed_tokens(ids[None]))
        q = layer.self_attn.q_norm(layer.self_attn.q_proj(hidden).view(1, 50, -1, 16))
        k = layer.self_attn.k_norm(layer.self_attn.k_proj(hidden).view(1, 50, -1, 16))
        cos, sin = model.model.rotary_emb(hidden, torch.arange(50)[None])
        rotated = apply_rotary_pos_emb(q.transpose(1, 2), k.transpose(1, 2), cos, sin)
    expected = {"norm": (q[0].norm(dim=0), k[0].norm(dim=0)), "rope": tuple(r[0].norm(dim=1) for r in rotated)}
    found = {site: list(measure_text(model, ids, projections, site=site)[50].values()) for site in ("norm", "rope")}
    plain = list(measure_text(model, ids, projections)[50].values())
    for site, pair in expected.items():
        for magnitude, by_hand, before in zip(found[site], pair, plain, strict=False):
            torch.testing.assert_close(magnitude, by_hand, rtol=1e-5, atol=1e-6)
            assert not torch.allclose(magnitude, before)
        assert torch.equal(found[site][2], plain[2])  # V
    assert_no_hooks(model)
    assert not ALL_ATTENTION_FUNCTIONS._local_mapping


def test_the_attention_function_comes_back_when_the_model_fails():
    model = make_model()
    with pytest.raises(IndexError):
        measure_text(model, torch.tensor([1, 10_000]), find_projections(model), site="rope")
    assert not ALL_ATTENTION_FUNCTIONS._local_mapping


def test_a_model_without_norms():
    model = make_decoder("llama")
    with pytest.raises(ValueError, match="q_proj has no q_norm behind it.*--after-rope"):
        check_site(model, find_projections(model, KINDS), "norm")
    check_site(model, find_projections(model, ("v",)), "norm")
    check_site(make_decoder("qwen3"), find_projections(make_decoder("qwen3"), KINDS), "norm")


@pytest.mark.parametrize("site", ["projection", "rope"])
def test_64k_tokens_in_the_memory_of_the_models_own_forward(site):
    """What measuring allocates beyond a plain forward of the decoder: a chunk in float32, nothing as long as the text
    but a copy of one projection where Q and K are heads first, behind the rotation; and no logits at all."""
    sizes = dict(hidden_size=16, head_dim=16, num_attention_heads=1, num_key_value_heads=1, num_hidden_layers=1)
    model = make_model(**sizes, intermediate_size=16, max_position_embeddings=65_536)
    ids, projections = make_ids(65_536), find_projections(model, KINDS)
    with torch.no_grad(), Allocations() as plain:
        model.get_decoder()(input_ids=ids[None], use_cache=False)
    with Allocations() as measured:
        found = measure_text(model, ids, projections, [4096, 16_384], site)
    assert list(found) == [4096, 16_384, 65_536]
    extra = measured.made - plain.made
    assert extra  # the counter sees the measurement at all
    limit = CHUNK_TOKENS * 16 if site == "projection" else len(ids) * 16
    assert max(numel for numel, _ in extra) <= limit
