import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from helpers.models import make_decoder
from longact_trl.method.projections import find_projections


HEAD_DIM = {"llama": 8, "qwen2": 8, "qwen3": 16, "mistral": 8, "phi3": 8}


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "peft"])
@pytest.mark.parametrize("model_type", HEAD_DIM)
def test_every_layer_and_head_is_found(model_type, wrapped):
    model = make_decoder(model_type)
    layers = list(model.model.layers)
    if wrapped:
        targets = ["qkv_proj"] if model_type == "phi3" else ["q_proj", "k_proj"]
        model = get_peft_model(model, LoraConfig(target_modules=targets, r=2))
    head_dim = HEAD_DIM[model_type]
    found = find_projections(model, ("q", "k", "v"))
    assert [p.kind for p in found] == ["q", "k", "v"] * 2
    assert [p.num_heads for p in found] == [6, 2, 2] * 2
    assert {p.head_dim for p in found} == {head_dim}
    for i, projection in enumerate(found):
        layer, attention = divmod(i, 3)[0], layers[i // 3].self_attn
        if model_type == "phi3":
            assert projection.name == f"model.layers.{layer}.self_attn.qkv_proj:{projection.kind}"
            assert projection.module is attention.qkv_proj
            assert projection.offset == {"q": 0, "k": 6 * head_dim, "v": 8 * head_dim}[projection.kind]
        else:
            assert projection.name == f"model.layers.{layer}.self_attn.{projection.kind}_proj"
            assert projection.module is getattr(attention, f"{projection.kind}_proj")
            assert projection.rows == slice(0, projection.num_heads * head_dim)
    assert [p.name for p in find_projections(model)] == [p.name for p in found if p.kind != "v"]


def test_rows_of_a_fused_projection_are_the_ones_its_forward_takes():
    model = make_decoder("phi3")
    fused = model.model.layers[0].self_attn.qkv_proj
    q, k, v = find_projections(model, ("q", "k", "v"))[:3]
    inputs = torch.randint(1, 48, (1, 12))
    before = model(inputs).logits
    with torch.no_grad():
        fused.weight[v.rows] = 0
    first = []
    handle = model.model.layers[0].self_attn.o_proj.register_forward_pre_hook(lambda _, args: first.append(args[0]))
    model(inputs)
    assert not first[0].any()  # without V, attention has nothing to say, whatever Q and K are
    assert not torch.equal(model(inputs).logits, before)
    # With Q or K at zero every position attends evenly: the output becomes the running mean of V.
    for projection in (q, k):
        with torch.no_grad():
            fused.weight.normal_(std=0.3)
            fused.weight[projection.rows] = 0
        values = []
        with torch.no_grad():
            tap = fused.register_forward_hook(lambda _, args, output: values.append(output[0, :, v.rows]))  # noqa: B023
            model(inputs)
            tap.remove()
        running_mean = values[0].cumsum(0) / torch.arange(1, 13).unsqueeze(1)
        expected = running_mean.view(12, 2, 1, 8).expand(12, 2, 3, 8).reshape(12, 48)
        torch.testing.assert_close(first[-1][0].detach(), expected)
    handle.remove()


class StrangeAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.wild = nn.Linear(4, 4)


@pytest.mark.parametrize(
    "model, message",
    [
        (nn.Sequential(nn.Linear(4, 4)), "Sequential has no attention layer.*with GRPOTrainer"),
        (nn.Sequential(StrangeAttention()), r"does not know those of 0 \(StrangeAttention: wild\).*CONTRIBUTING"),
    ],
)
def test_a_model_that_is_not_understood_says_where_and_why(model, message):
    with pytest.raises(ValueError, match=message):
        find_projections(model)


def test_rows_that_are_no_whole_number_of_heads_raise():
    model = make_decoder("llama")
    model.model.layers[1].self_attn.head_dim = 7
    with pytest.raises(ValueError, match="layers.1.self_attn.q_proj has 48 rows.*head_dim 7"):
        find_projections(model)
    model = make_decoder("phi3")
    model.model.layers[1].self_attn.head_dim = 7
    with pytest.raises(ValueError, match="layers.1.self_attn.qkv_proj has 80 rows.*leave 38.*no whole number"):
        find_projections(model)
