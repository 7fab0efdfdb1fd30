"""States that recurrent layers hand from prefixes to segments, within and across micro-batches, against TRL's plain
path on the same rows. In float64 where several passes add up: a random gated delta net is no better conditioned than
4e-5 in float32."""

import sys

import pytest
import torch

from helpers.families import exact_recurrences_in, shared_prefix_error, tiny_model
from helpers.prefix_rows import GROUP, assert_close, make_batch, once, parts_of, plainly, turns_of, with_head
from longact_trl.packing.forward import forward_once, packed_attention_in
from longact_trl.packing.recurrence import CONVOLUTION, RECURRENCES
from longact_trl.packing.schedule import key_of


FAMILIES = [
    "qwen3_next",  # gated delta nets, experts
    "qwen3_5_text",
    "olmo_hybrid",
    "kimi_linear",  # decays of channels
    "granitemoehybrid",  # Mamba 2
    "nemotron_h",
]


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_and_gradients(family):
    models = tiny_model(family), tiny_model(family)
    if family == "olmo_hybrid":  # in float32 it is at 2e-5
        models = [model.double() for model in models]
    assert shared_prefix_error(*models) < 1e-5


@pytest.mark.parametrize("size, chunk_size", [(1, None), (3, None), (2, 2), (3, 5)])
@pytest.mark.parametrize("family", ["qwen3_5_text", "bamba"])
def test_gradients_of_an_optimizer_step(family, size, chunk_size):
    """Chunks that are shorter than the convolution is wide, too."""
    batch, prompt_length = make_batch(*GROUP)
    model = with_head(tiny_model(family).double())
    with exact_recurrences_in(model):
        expected = plainly(model, batch, size)
        turns = turns_of(batch, prompt_length, size, chunk_size=chunk_size, offload=chunk_size == 5)
        assert_close(once(model, batch, prompt_length, size, turns), expected)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # the trainer switches it off there
def test_gradient_checkpointing(reentrant):
    batch, prompt_length = make_batch(*GROUP)
    model = with_head(tiny_model("qwen3_5_text").double())
    with exact_recurrences_in(model):
        expected = plainly(model, batch, 2)
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        assert_close(once(model, batch, prompt_length, 2, turns_of(batch, prompt_length, 2)), expected)


def test_training_reads_the_states_that_scoring_kept():
    batch, prompt_length = make_batch([12], [(0, 6)] * 4)
    model = with_head(tiny_model("qwen3_5_text").double())
    with exact_recurrences_in(model):
        expected = plainly(model, batch, 2)
        scoring = turns_of(batch, prompt_length, 2, training=False)
        with torch.no_grad(), packed_attention_in(model):
            for turn, part in zip(scoring, parts_of(batch, 2), strict=True):
                found = forward_once(model, prompt_length, turn, **part).log_probs
                torch.testing.assert_close(found, model(**part).log_probs)
        known = {key_of(kept.ids, kept.columns): kept for kept in scoring[0].kept.values()}
        turns = turns_of(batch, prompt_length, 2, known=known)
        assert not any(turn.before for turn in turns)
        assert_close(once(model, batch, prompt_length, 2, turns), expected)


def test_a_kernel_in_place_of_a_whole_layer_is_found():
    """As transformers takes one from the Hub for `use_kernels`: it sees one row of tokens."""
    batch, prompt_length = make_batch(*GROUP)
    model = with_head(tiny_model("qwen3_5_text"))
    layer = model.base_model.layers[0].linear_attn
    layer.forward = lambda hidden_states, **kwargs: hidden_states
    with pytest.raises(
        ValueError, match="Qwen3_5GatedDeltaNet mixes tokens by other functions.*`shared_prefix: 'off'`"
    ):
        once(model, batch, prompt_length, 8, turns_of(batch, prompt_length, 8))


def test_a_layer_that_is_not_told_of_the_packing_is_found():
    """As in transformers 5.6, where rows would be mixed without a word."""
    batch, prompt_length = make_batch(*GROUP)
    model = with_head(tiny_model("qwen3_5_text"))
    model.base_model.layers[0].linear_attn.register_forward_pre_hook(
        lambda layer, args, kwargs: (args, {k: v for k, v in kwargs.items() if k != "shared_prefix"}), with_kwargs=True
    )
    with pytest.raises(ValueError, match="Qwen3_5GatedDeltaNet is not told where .*`shared_prefix: 'off'`"):
        once(model, batch, prompt_length, 8, turns_of(batch, prompt_length, 8))


def test_functions_and_hooks_are_as_before():
    """Also where a policy and its reference have one file."""
    models = tiny_model("qwen3_5_text"), tiny_model("qwen3_5_text")
    file = sys.modules[type(models[0]).__module__]
    names = [name for name in (CONVOLUTION, *RECURRENCES) if hasattr(file, name)]
    before = [getattr(file, name) for name in names]
    with pytest.raises(KeyError), packed_attention_in(*models):
        assert all(getattr(file, name) is not usual for name, usual in zip(names, before, strict=True))
        raise KeyError
    assert [getattr(file, name) for name in names] == before
    assert not any(
        module._forward_pre_hooks or module._forward_hooks for model in models for module in model.modules()
    )
