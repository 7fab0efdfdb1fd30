"""In the last layer, K and V of a prefix are computed and nothing else; that nothing changes is shown elsewhere."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from helpers.families import tiny_model
from helpers.models import make_decoder
from helpers.prefix_rows import alone, make_batch, with_head
from longact_trl.packing.forward import forward_once, forward_stretch, packed_attention_in
from longact_trl.packing.kept import KeptPrefix
from longact_trl.packing.last_layer import last_layer_of
from longact_trl.packing.layout import Group, PackedLayout
from longact_trl.packing.schedule import Stretch


P, C, G = 12, 5, 4
PACKED, SEGMENTS = P - 1 + G * (C + 1), G * (C + 1)


def count_tokens(module: nn.Module, into: list[int]) -> None:
    module.register_forward_hook(lambda module, args, output: into.append(args[0].size(1)))


def tokens_by_module(model: nn.Module, run) -> dict[str, list[int]]:
    """Tokens that each of these ran on, in the first and in the last layer, forwards and in recomputation."""
    counts = {}
    with packed_attention_in(model):
        for number, layer in enumerate(model.base_model.layers):
            for name in ("self_attn.k_proj", "self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"):
                count_tokens(layer.get_submodule(name), counts.setdefault(f"{number}.{name.split('.')[1]}", []))
        run().sum().backward()
    return counts


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("stretch", [False, True])
def test_behind_its_attention_the_last_layer_runs_on_segments_alone(stretch, checkpointing):
    model = with_head(make_decoder("qwen3"))
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    batch, prompt_length = make_batch([P], [(0, C)] * G)
    if stretch:
        ids = batch["input_ids"][0, : P - 1]
        kept = KeptPrefix(ids, torch.arange(P - 1))
        counts = tokens_by_module(model, lambda: forward_stretch(model, Stretch(kept, 0, P - 1), model.device))
        every, last = P - 1, 1  # the LM head has to run on something
    else:
        turn = alone(batch, prompt_length)
        counts = tokens_by_module(model, lambda: forward_once(model, prompt_length, turn, **batch).log_probs)
        every, last = PACKED, SEGMENTS
    if checkpointing and type(model.base_model.layers[-1]).__call__ is nn.Module.__call__:
        last = every  # this transformers recomputes without hooks of the layer
    for name, tokens in counts.items():
        ends = name.startswith("1.") and name.split(".")[1] in ("o_proj", "down_proj")
        assert set(tokens) == {last if ends else every}, name


def test_rows_as_they_are_run_whole_and_no_hook_is_left():
    """Also after an error in the last layer, whose modules other models may share."""
    model = with_head(make_decoder("qwen3"))
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    batch, prompt_length = make_batch([P], [(0, C)] * G)
    failing = model.base_model.layers[-1].mlp.register_forward_hook(lambda *args: 1 / 0)
    with packed_attention_in(model):
        with pytest.raises(ZeroDivisionError):
            forward_once(model, prompt_length, alone(batch, prompt_length), **batch)
        failing.remove()
        width = PACKED  # as many tokens as the row that failed
        found = model(input_ids=torch.ones(1, width, dtype=torch.long), logits_to_keep=0).logits
    expected = model(input_ids=torch.ones(1, width, dtype=torch.long), logits_to_keep=0).logits
    torch.testing.assert_close(found, expected)
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks


def test_lora_draws_dropout_for_segments_only():
    model = get_peft_model(
        with_head(make_decoder("qwen3")), LoraConfig(target_modules=["down_proj"], lora_dropout=0.5)
    ).train()
    batch, prompt_length = make_batch([P], [(0, C)] * G)
    tokens = []
    last = model.get_base_model().base_model.layers[-1].mlp.down_proj
    count_tokens(last.lora_dropout["default"], tokens)
    with packed_attention_in(model):
        forward_once(model, prompt_length, alone(batch, prompt_length), **batch)
    assert tokens == [SEGMENTS]


def test_a_layer_of_two_attentions_is_left_alone():
    assert last_layer_of(tiny_model("longcat_flash").base_model) is None
    assert last_layer_of(tiny_model("qwen3").base_model) is not None


def test_segments_go_back_to_their_places():
    """Also where a prefix without any segment ends the row."""
    groups = Group(slice(0, 3), (slice(3, 5), slice(5, 6))), Group(slice(6, 8), ())
    tokens = torch.arange(8)
    layout = PackedLayout(tokens, tokens, groups)
    packed = torch.arange(1.0, 9.0).view(1, 8, 1).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda tensor: tensor):
        back = layout.spread(layout.segments_of(packed))
    assert back.flatten().tolist() == [0, 0, 0, 4, 5, 6, 0, 0]
    assert back.requires_grad and not saved  # see there: ranks of ZeRO-3 would part
