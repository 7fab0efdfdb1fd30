"""One forward of a prompt for completions in several micro-batches, against TRL's plain path on the same rows."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from helpers.models import make_decoder
from helpers.prefix_rows import (
    GROUP,
    SHAPES,
    Counting,
    assert_close,
    gradients,
    make_batch,
    once,
    parts_of,
    plainly,
    turns_of,
    with_head,
)
from longact_trl import LongActConfig
from longact_trl.method.magnitude import MagnitudeObserver
from longact_trl.method.projections import find_projections
from longact_trl.packing.forward import forward_once, forward_stretch, keep_prefixes, packed_attention_in
from longact_trl.packing.obstacles import check_shared_prefix, shares_prefixes
from longact_trl.packing.schedule import key_of


@pytest.mark.parametrize("chunk_size", [None, 4, 5, 10])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_gradients_of_an_optimizer_step(size, chunk_size):
    """Groups that end within a micro-batch, that begin within one, that are apart; ragged completions."""
    batch, prompt_length = make_batch(*GROUP)
    model = with_head(make_decoder("qwen3"))
    expected = plainly(model, batch, size)
    turns = turns_of(batch, prompt_length, size, chunk_size=chunk_size)
    assert any(turn.kept for turn in turns) == (size < 8 or chunk_size is not None)
    assert_close(once(model, batch, prompt_length, size, turns), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_other_shapes_and_models(model_type, shape):
    batch, prompt_length = make_batch(*SHAPES[shape])
    model = with_head(make_decoder(model_type))
    expected = plainly(model, batch, 1)
    assert_close(once(model, batch, prompt_length, 1, turns_of(batch, prompt_length, 1)), expected)


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # the trainer switches it off there
def test_gradient_checkpointing(reentrant, chunk_size):
    """What is computed again in backward reads the same K and V, and adds their gradient once."""
    batch, prompt_length = make_batch(*GROUP)
    model = with_head(make_decoder("qwen3"))
    expected = plainly(model, batch, 2)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    turns = turns_of(batch, prompt_length, 2, chunk_size=chunk_size)
    assert_close(once(model, batch, prompt_length, 2, turns), expected)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("size", [1, 2])
def test_bfloat16(size, chunk_size, autocast):
    """Both paths round, and the gradients of a prompt's K and V add up in bfloat16: at most a quarter further from
    float32 than TRL's own."""
    batch, prompt_length = make_batch(*GROUP)
    exact, model = (with_head(make_decoder("qwen3")) for _ in range(2))
    truth = plainly(exact, batch, size)
    model = model if autocast else model.bfloat16()

    def errors(found: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack([(found[n].float() - v).norm() / v.norm() for n, v in truth.items()])

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        plain = errors(plainly(model, batch, size))
        ours = errors(once(model, batch, prompt_length, size, turns_of(batch, prompt_length, size, True, chunk_size)))
    assert ours.mean() <= 1.25 * plain.mean() and ours.max() <= 1.5 * plain.max(), (ours.mean(), plain.mean())


@pytest.mark.parametrize("targets", [["q_proj", "k_proj"], ["v_proj"], ["down_proj"]])
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_lora(targets, chunk_size):
    batch, prompt_length = make_batch(*GROUP)
    model = get_peft_model(
        with_head(make_decoder("qwen3")), LoraConfig(target_modules=targets, init_lora_weights=False)
    ).train()
    expected = plainly(model, batch, 2)
    turns = turns_of(batch, prompt_length, 2, chunk_size=chunk_size)
    assert_close(once(model, batch, prompt_length, 2, turns), expected)


def test_a_prompt_longer_than_the_kernels_tiles():
    batch, prompt_length = make_batch([700, 515], [(0, 130), (0, 70), (1, 129), (1, 3)])
    model = with_head(make_decoder("qwen3", max_position_embeddings=1024))
    expected = plainly(model, batch, 1)
    for chunk_size in (None, 300):
        turns = turns_of(batch, prompt_length, 1, chunk_size=chunk_size, offload=chunk_size is not None)
        assert_close(once(model, batch, prompt_length, 1, turns), expected)


@pytest.mark.parametrize("chunk_size", [None, 16])
def test_tokens_that_are_forwarded(chunk_size):
    """
    Without gradient each prefix once; with gradient each prefix once and each row from the prompt's last token on.
    No row has a graph together with more than a chunk of prefix.
    """
    P, C, G = 40, 6, 8
    batch, prompt_length = make_batch([P], [(0, C)] * G)
    for size in (1, 2, 4, 8):
        model = Counting(with_head(make_decoder("qwen3", max_position_embeddings=64)))
        once(model, batch, prompt_length, size, turns_of(batch, prompt_length, size, chunk_size=chunk_size))
        shared = size < G or chunk_size is not None
        assert model.tokens == [(P - 1) * shared, P - 1 + G * (C + 1)]
        rows = size * (C + 1)
        assert model.longest == (max(chunk_size, rows) if chunk_size else rows + P - 1)


def test_the_scoring_pass_forwards_a_prompt_once_and_training_reads_what_it_kept():
    P, C, G = 12, 6, 8
    batch, prompt_length = make_batch([P], [(0, C)] * G)
    model = Counting(with_head(make_decoder("qwen3")))
    expected = plainly(model.model, batch, 2)
    with torch.no_grad():
        logps = torch.cat([model.model(**part).log_probs for part in parts_of(batch, 2)])
    scoring = turns_of(batch, prompt_length, 2, training=False)
    with torch.no_grad(), packed_attention_in(model.model):
        outputs = [
            forward_once(model, prompt_length, turn, **part)
            for turn, part in zip(scoring, parts_of(batch, 2), strict=True)
        ]
    torch.testing.assert_close(torch.cat([output.log_probs for output in outputs]), logps)
    known = {key_of(kept.ids, kept.columns): kept for kept in scoring[0].kept.values()}
    found = once(model, batch, prompt_length, 2, turns_of(batch, prompt_length, 2, known=known))
    assert_close(found, expected)
    assert model.tokens == [P - 1 + G * (C + 1)] * 2  # nothing but the two passes


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_prompts_that_differ_in_their_last_token_alone(chunk_size):
    """Their prefixes are equal, and each has its own gradients."""
    P, C, G = 12, 6, 4
    batch, prompt_length = make_batch([P, P], [(0, C)] * G + [(1, C)] * G)
    batch["input_ids"][G:, : P - 1] = batch["input_ids"][0, : P - 1]
    model = Counting(with_head(make_decoder("qwen3")))
    expected = plainly(model.model, batch, 2)
    scoring = turns_of(batch, prompt_length, 2, training=False)
    with torch.no_grad(), packed_attention_in(model.model):
        for turn, part in zip(scoring, parts_of(batch, 2), strict=True):
            forward_once(model, prompt_length, turn, **part)
    known = {key_of(kept.ids, kept.columns): kept for turn in scoring for kept in turn.kept.values()}
    turns = turns_of(batch, prompt_length, 2, chunk_size=chunk_size, known=known)
    assert_close(once(model, batch, prompt_length, 2, turns), expected)
    assert model.tokens == [2 * (P - 1 + G * (C + 1))] * 2 and not known


def test_what_was_kept_at_other_positions_is_not_read():
    """A step may train on two generations, of which another prompt has made one wider."""
    batch, prompt_length = make_batch(*GROUP)
    model = with_head(make_decoder("qwen3"))
    expected = plainly(model, batch, 2)
    wider = {name: torch.nn.functional.pad(batch[name], (3, 0)) for name in ("input_ids", "attention_mask")}
    wider |= {"labels": torch.nn.functional.pad(batch["labels"], (3, 0), value=-100), "fused_lm_head": True}
    scoring = turns_of(wider, prompt_length + 3, 2, training=False)
    with torch.no_grad(), packed_attention_in(model):
        for turn, part in zip(scoring, parts_of(wider, 2), strict=True):
            forward_once(model, prompt_length + 3, turn, **part)
    known = {key_of(kept.ids, kept.columns): kept for turn in scoring for kept in turn.kept.values()}
    assert known
    assert_close(once(model, batch, prompt_length, 2, turns_of(batch, prompt_length, 2, known=known)), expected)


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("training", [True, False])
def test_magnitudes_count_a_prompt_once_for_each_of_its_sequences(training, chunk_size):
    """Eq. 2, whichever pass had the prompt's tokens, and however often they ran."""
    batch, prompt_length = make_batch(*GROUP)
    model = with_head(make_decoder("qwen3"))
    expected, found = (MagnitudeObserver(find_projections(model, ("q", "k", "v"))) for _ in range(2))
    with torch.no_grad(), expected.observe(model):
        model(**batch)
    turns = turns_of(batch, prompt_length, 2, training, chunk_size)
    with torch.set_grad_enabled(training), packed_attention_in(model), found.observe(model):
        for turn, part in zip(turns, parts_of(batch, 2), strict=True):
            keep_prefixes(model, turn, model.device)
            output = forward_once(model, prompt_length, turn, **part)
            if training:
                output.log_probs.sum().backward()
            for stretch in turn.after:
                forward_stretch(model, stretch, model.device).backward()
    assert found.num_sequences == expected.num_sequences == len(batch["input_ids"])
    expected, found = expected.compute(), found.compute()
    for name, magnitude in expected.items():
        torch.testing.assert_close(found[name], magnitude, rtol=1e-5, atol=0)


def test_a_pass_for_the_sake_of_other_ranks_adds_nothing():
    model = with_head(make_decoder("qwen3"))
    observer = MagnitudeObserver(find_projections(model))
    with packed_attention_in(model), observer.observe(model):
        forward_stretch(model, None, model.device).backward()
    assert observer.num_sequences == 0
    grads = gradients(model)
    assert grads.keys() == {name for name, _ in model.named_parameters()}  # DDP waits for each
    assert not any(grad.any() for grad in grads.values())


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_dropout_draws_the_same_when_a_prefix_runs_again(chunk_size):
    """Otherwise its gradients would be taken at other K and V than those that were read."""
    batch, prompt_length = make_batch([12], [(0, 7), (0, 3), (0, 5), (0, 6)])
    config = LoraConfig(target_modules=["k_proj"], lora_dropout=0.5, init_lora_weights=False)
    model = get_peft_model(with_head(make_decoder("qwen3")), config).train()
    without, with_graph = [], []
    turns = turns_of(batch, prompt_length, 2, chunk_size=chunk_size, dropout=True)
    with packed_attention_in(model):
        layer = model.base_model.model.model.layers[1].self_attn.k_proj
        layer.register_forward_hook(
            lambda module, args, output: (with_graph if output.requires_grad else without).append(output.detach())
        )
        for turn, part in zip(turns, parts_of(batch, 2), strict=True):
            keep_prefixes(model, turn, model.device)
            forward_once(model, prompt_length, turn, **part).log_probs.sum().backward()
        with_graph.clear()
        before = torch.get_rng_state()
        for stretch in turns[-1].after:
            forward_stretch(model, stretch, model.device).backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert without and torch.equal(torch.cat(without, 1), torch.cat(with_graph[::-1], 1))
    assert not any(turn.in_row for turn in turns)


def test_a_block_in_several_layers_is_not_shared(tmp_path):
    """Whatever the type of the model says: K and V are kept by module, and would be another layer's."""
    model = with_head(make_decoder("qwen3"))
    on, auto = (LongActConfig(str(tmp_path), shared_prefix=mode, use_cpu=True) for mode in ("on", "auto"))
    check_shared_prefix(model.config, on, model)
    model.base_model.layers[1].self_attn = model.base_model.layers[0].self_attn
    with pytest.raises(ValueError, match="layers.0.self_attn and model.layers.1.self_attn are one module"):
        check_shared_prefix(model.config, on, model)
    assert shares_prefixes(model.config, auto) and not shares_prefixes(model.config, auto, model)


def test_a_layer_that_attends_twice_is_found_when_it_does():
    """DiffLlama is refused by name; what is not known by name must not train on wrong gradients."""
    batch, prompt_length = make_batch(*GROUP)
    model = with_head(make_decoder("diffllama"))
    with pytest.raises(ValueError, match="attends several times in a forward pass.*`shared_prefix: 'off'`"):
        once(model, batch, prompt_length, 1, turns_of(batch, prompt_length, 1))
