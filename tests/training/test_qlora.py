"""LoRA over NF4 weights (bitsandbytes' own CPU kernels): what holds without quantisation holds here."""

import grpo_longact
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from helpers.gradients import accumulate, mask_by_hand, random_masks
from helpers.models import make_model, make_tokenizer
from helpers.recorder import StepRecorder, masks_by_parameter
from helpers.resuming import StopAt
from helpers.trainers import make_args, make_prompts, spread_reward
from helpers.weights import assert_same_weights
from longact_trl import LongActTrainer, measure_magnitudes
from longact_trl.method.gradients import GradientMasker
from longact_trl.method.projections import find_projections


NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
TARGETS = ["q_proj", "k_proj", "v_proj"]
ADAPTERS = {"lora": {}, "dora": {"use_dora": True}}
BATCH = {"input_ids": torch.randint(3, 60, (3, 24), generator=torch.Generator().manual_seed(0))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """The tiny Qwen3, in widths that NF4's blocks of 64 weights divide."""
    folder = tmp_path_factory.mktemp("qwen3")
    make_model(intermediate_size=128).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def quantised(folder: str):
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=NF4, dtype=torch.float32)
    assert {p.module.weight.dtype for p in find_projections(model)} == {torch.uint8}
    return model


def adapted(model, **kwargs) -> PeftModel:
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(target_modules=TARGETS, r=2, init_lora_weights=False, **kwargs))
    model.enable_input_require_grads()
    return model


def qlora_trainer(output_dir, folder: str, trainer_class=LongActTrainer, callbacks=(), adapter=None, **kwargs):
    return trainer_class(
        folder,
        [spread_reward],
        make_args(output_dir, **kwargs),
        make_prompts(),
        peft_config=LoraConfig(**{"target_modules": TARGETS, "r": 2, **(adapter or {})}),
        quantization_config=NF4,
        callbacks=list(callbacks),
    )


@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_gradients_equal_a_dense_backward_masked_by_hand(folder, kind, checkpointing):
    masked, dense = (adapted(quantised(folder), **ADAPTERS[kind]) for _ in range(2))
    projections = find_projections(masked)
    masks = random_masks(projections)
    masker = GradientMasker(projections, "on")
    masker.attach()
    masker.set_masks(masks)
    found, rows = accumulate(masked, checkpointing), ["lora_B.default.weight"]
    rows += ["lora_magnitude_vector.default.weight"] if kind == "dora" else []
    expected = mask_by_hand(dense, accumulate(dense, checkpointing), masks, rows)
    # The same numbers without bitsandbytes, and with other kernels.
    plain = adapted(quantised(folder).dequantize(), **ADAPTERS[kind])
    near = mask_by_hand(plain, accumulate(plain, checkpointing), masks, rows)
    assert found.keys() == expected.keys() == near.keys()
    for name, grad in found.items():
        assert torch.equal(grad, expected[name]), name
        assert (grad - near[name]).norm() <= 1e-4 * near[name].norm(), name
    assert sum(not grad.any(1).all() for grad in found.values() if grad.dim() == 2) == len(projections)


def test_magnitudes_are_those_of_the_dequantised_model(folder):
    found = measure_magnitudes(quantised(folder).train(), BATCH)  # bitsandbytes evaluates in bfloat16 on some CPUs
    expected = measure_magnitudes(quantised(folder).dequantize(), BATCH)
    exact = measure_magnitudes(AutoModelForCausalLM.from_pretrained(folder), BATCH)
    assert found.keys() == expected.keys() == exact.keys()
    for name, magnitude in found.items():
        torch.testing.assert_close(magnitude, expected[name], rtol=1e-5, atol=0)
        assert not torch.allclose(magnitude, exact[name], rtol=1e-3)  # 4 bits do change them


@pytest.mark.parametrize("kind", ADAPTERS)
def test_unselected_rows_keep_their_bits(tmp_path, folder, kind):
    recorder = StepRecorder()
    settings = {"weight_decay": 0.1, "max_steps": 4, "update_rule": "frozen_rows", "strategy": "random"}
    recorder.trainer = qlora_trainer(tmp_path, folder, callbacks=[recorder], adapter=ADAPTERS[kind], **settings)
    recorder.trainer.train()
    masks = masks_by_parameter(recorder)
    assert len(masks[0]) == 4 * (1 + len(ADAPTERS[kind]))
    left = 0
    for step, (before, after) in enumerate(zip(recorder.before, recorder.after, strict=True)):
        for name, mask in masks[step].items():
            assert torch.equal(before[name][~mask], after[name][~mask]), (step, name)
            assert (before[name][mask] != after[name][mask]).any(), (step, name)
            left += int((masks[step - 1][name] & ~mask).sum()) if step else 0
        for name, weight in before.items():
            assert torch.equal(weight, after[name]) or "lora_" in name, (step, name)
    assert left > 50  # rows with momentum, or the test would show nothing


@pytest.mark.parametrize(
    "settings",
    [{"update_rule": "frozen_rows"}, {"steps_per_generation": 2, "beta": 0.1, "saliency_source": "previous_step"}],
    ids=["frozen_rows", "middle_of_a_generation"],
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, folder, settings):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "linear", **settings}
    whole = qlora_trainer(tmp_path / "whole", folder, **settings)
    whole.train()
    qlora_trainer(tmp_path / "parts", folder, callbacks=[StopAt(3)], **settings).train()
    resumed = qlora_trainer(tmp_path / "parts", folder, **settings)
    resumed.train(resume_from_checkpoint="auto")
    assert resumed.state.global_step == 6
    assert_same_weights(resumed.model, whole.model)
    assert all(torch.equal(m, whole.mask_refresh.masks[n]) for n, m in resumed.mask_refresh.masks.items())


def test_a_shared_prefix(folder, packed, tmp_path):
    """The gradient of one micro-batch, and the magnitudes."""
    grads, magnitudes = [], []

    class Noting(LongActTrainer):
        def _get_grad_norm(self, model, grad_norm=None):
            grads.append({n: p.grad.float() for n, p in self.model.named_parameters() if p.grad is not None})
            magnitudes.append(self.mask_refresh.magnitudes)
            return super()._get_grad_norm(model, grad_norm)

    for mode in ("off", "on"):
        qlora_trainer(tmp_path / mode, folder, Noting, max_steps=1, shared_prefix=mode, max_grad_norm=0.0).train()
        assert bool(packed) == (mode == "on")
    for name, expected in grads[0].items():  # adapters are bfloat16, and so is what is added up for them
        assert (grads[1][name] - expected).norm() <= 2e-2 * expected.norm(), name
    for name, expected in magnitudes[0].items():
        torch.testing.assert_close(magnitudes[1][name], expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"quantization_config": NF4}, "quantised and cannot be trained. Pass a `peft_config`"),
        (
            {"quantization_config": NF4, "peft_config": LoraConfig(target_modules=["q_proj", "v_proj"])},
            "layers.0.self_attn.k_proj has no trainable parameter.*`target_modules` include it",
        ),
        ({"peft_config": LoraConfig(task_type="CAUSAL_LM")}, "k_proj has no trainable parameter"),  # PEFT's default
    ],
    ids=["no_adapter", "no_k_proj", "default_targets"],
)
def test_what_leaves_a_projection_untrained_is_found_before_weights_are_loaded(tmp_path, no_weights, kwargs, message):
    with pytest.raises(ValueError, match=message):
        LongActTrainer(str(no_weights), spread_reward, make_args(tmp_path), make_prompts(), **kwargs)


def test_the_recipe_takes_trls_flags(tmp_path):
    """One step from B = 0: what is not zero afterwards are the rows of the mask."""
    options = {"load_in_4bit": "true", "use_peft": "true", "max_steps": 1, "num_generations": 4, "save_steps": 1}
    options |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_completion_length": 8}
    options |= {"warmup_steps": 0}
    argv = ["--config", "quickstart.yaml", "--output_dir", str(tmp_path / "run"), "--report_to", "none"]
    argv += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    grpo_longact.train([*argv, "--lora_target_modules", *TARGETS])
    masks = load_file(tmp_path / "run" / "checkpoint-1" / "longact" / "masks.safetensors")
    saved = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert len(saved) == 12
    for name, mask in masks.items():
        if name.startswith("mask/"):
            b = saved[f"base_model.model.{name.removeprefix('mask/')}.lora_B.weight"]
            assert b.any() and torch.equal(b.any(1), mask), name
