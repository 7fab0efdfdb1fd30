"""Run by every rank of a launched backend: whole LongActTrainer runs, compared with each other. Prints OK."""

import os
import sys
from contextlib import nullcontext

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import TrainerCallback

from helpers.models import make_model
from helpers.trainers import make_args, make_prompts, spread_reward
from longact_trl import LongActTrainer
from longact_trl.method.gradients import row_parameters
from longact_trl.method.magnitude import MagnitudeObserver
from longact_trl.method.projections import find_projections


BACKEND, MODEL, OUT, *ADAPTER = sys.argv[1:]
ZERO = BACKEND.startswith("zero")
LORA = ADAPTER == ["lora"]
# SGD at learning rate 1 turns gradients into weights.
ONE_STEP = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}


def check_magnitudes() -> None:
    """Eq. 2 over both ranks, which see 3 sequences and 1: the brute-force mean over all 4, the same bits on both."""
    rank = int(os.environ["RANK"])
    model = make_model()
    ids = torch.randint(3, 60, (4, 20), generator=torch.Generator().manual_seed(0))
    observer = MagnitudeObserver(find_projections(model))
    with torch.no_grad(), observer.observe(model):
        model(input_ids=ids[:3] if rank == 0 else ids[3:])
    magnitudes = observer.compute()
    for projection in observer.projections:
        outputs = []
        handle = projection.module.register_forward_hook(
            lambda m, a, out, outputs=outputs: outputs.append(out.double())
        )
        with torch.no_grad():
            model(input_ids=ids)
        handle.remove()
        brute = outputs[0].square().sum(1).sqrt().mean(0).view(projection.num_heads, projection.head_dim)
        torch.testing.assert_close(magnitudes[projection.name].double(), brute, rtol=1e-5, atol=0)
        both = [torch.empty_like(magnitudes[projection.name]) for _ in range(2)]
        dist.all_gather(both, magnitudes[projection.name])
        assert torch.equal(*both)


def make_trainer(name: str, callbacks=(), **kwargs) -> LongActTrainer:
    settings = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 4,
        "gradient_checkpointing": BACKEND != "fsdp2",  # there it belongs into the accelerate config
    }
    args = make_args(f"{OUT}/{name}", **{**settings, **kwargs})
    adapter = {}
    if LORA:
        from peft import LoraConfig

        # B starts at zero by default, which would leave A without a gradient in the first step.
        adapter["peft_config"] = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    trainer = LongActTrainer(MODEL, spread_reward, args, make_prompts(), callbacks=list(callbacks), **adapter)
    if not ZERO:  # transformers maps the optimizer's state to "cpu:0", which torch.load refuses; a GPU's name it takes
        args.__dict__["_setup_devices"] = torch.device("cpu")
    return trainer


def whole(param: torch.Tensor) -> torch.Tensor:
    """A copy of a parameter, put together from the shards of all ranks."""
    if hasattr(param, "full_tensor"):
        return param.detach().full_tensor().clone()
    with gathered(param):
        return param.detach().clone()


def gathered(param):
    if BACKEND != "zero3":
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([param])


def master(param: torch.Tensor) -> torch.Tensor:
    """DeepSpeed's float32 copy of a parameter."""
    from deepspeed.utils import safe_get_full_fp32_param

    return safe_get_full_fp32_param(param).clone()


def weights(trainer: LongActTrainer) -> dict[str, torch.Tensor]:
    return {name: whole(param) for name, param in trainer.model.named_parameters()}


def masks_by_parameter(trainer: LongActTrainer) -> dict[str, torch.Tensor]:
    return {name: trainer.mask_refresh.masks[projection] for name, projection in masked_parameters(trainer).items()}


def masked_parameters(trainer: LongActTrainer) -> dict[str, str]:
    """Name of a parameter to that of the projection whose rows it has."""
    names = {id(param): name for name, param in trainer.model.named_parameters()}
    projections = trainer.mask_refresh.projections
    return {names[id(param)]: p.name for p in projections for param in row_parameters(p.module)}


class PoisonUnselectedRows(TrainerCallback):
    """Makes the dense gradient NaN wherever no mask may let it through."""

    trainer: LongActTrainer

    def on_train_begin(self, args, state, control, **kwargs):
        masker = self.trainer.mask_refresh.masker
        for module, dropped in masker._dropped.items():
            for param in row_parameters(module):
                if BACKEND == "fsdp2":
                    continue  # the gradient of a whole parameter never exists there
                param.register_hook(lambda grad, dropped=dropped: grad.masked_fill(dropped[:, None], float("nan")))


class FrozenRowsStayFrozen(TrainerCallback):
    """After each step: unselected rows have their bits, parameter and master; selected rows have moved."""

    trainer: LongActTrainer
    steps = 0

    def snapshot(self):
        params = {n: p for n, p in self.trainer.model.named_parameters() if n in masked_parameters(self.trainer)}
        copies = {n: whole(p) for n, p in params.items()}
        return copies, {n: master(p) for n, p in params.items()} if ZERO else {}

    def on_step_begin(self, args, state, control, **kwargs):
        self.before = self.snapshot()

    def on_step_end(self, args, state, control, **kwargs):
        masks = masks_by_parameter(self.trainer)
        for before, after in zip(self.before, self.snapshot(), strict=True):
            for name in before:
                mask = masks[name]
                assert torch.equal(before[name][~mask], after[name][~mask]), (
                    f"{name} moved at step {state.global_step}"
                )
                moved = (before[name][mask] != after[name][mask]).float().mean()
                assert moved > 0.5 or after[name].dtype == torch.bfloat16, (
                    f"{name}: selected rows did not move: {moved}"
                )
        self.steps += 1


def run(trainer: LongActTrainer, **kwargs) -> dict[str, torch.Tensor]:
    for callback in trainer.callback_handler.callbacks:
        callback.trainer = trainer
    trainer.train(**kwargs)
    assert not any(p._backward_hooks for m in trainer.mask_refresh.masker._dropped for p in row_parameters(m)) or any(
        isinstance(c, PoisonUnselectedRows) for c in trainer.callback_handler.callbacks
    )
    return weights(trainer)


def check_gradients() -> None:
    """Masked = dense masked by hand, to the bit."""
    step = {**ONE_STEP, "row_sparse_gradients": "off"}
    start = weights(make_trainer("start", **step))
    for weight in start.values():
        dist.broadcast(weight, 0)  # under FSDP2 the other ranks receive theirs only when training begins
    dense = run(make_trainer("dense", strategy="dense", **step))
    trainer = make_trainer("massive", callbacks=[PoisonUnselectedRows()], **step)
    masked = run(trainer)
    masks = masks_by_parameter(trainer)
    assert len(masks) == 4
    for name in dense:
        expected = torch.where(masks[name][:, None], dense[name], start[name]) if name in masks else dense[name]
        assert torch.equal(expected, masked[name]), (name, (expected - masked[name]).abs().max())
        if "lora_" in name or not LORA:
            assert not torch.equal(dense[name], start[name]), f"{name} has no gradient"


class WeightsAreFreed(TrainerCallback):
    """ZeRO-3: a gathered weight of a masked projection does not wait for the backward pass."""

    trainer: LongActTrainer
    checked = 0

    def on_train_begin(self, args, state, control, **kwargs):
        gathered = []
        params = [module.weight for module in self.trainer.mask_refresh.masker._dropped]
        assert all(param.ds_status.name == "NOT_AVAILABLE" for param in params)

        def after_projection(module, args, output):
            assert module.weight.shape == (module.out_features, module.in_features)
            gathered.append(StorageWeakRef(module.weight.untyped_storage()))

        def after_forward(module, args, output):
            if torch.is_grad_enabled():
                assert gathered and all(storage.expired() for storage in gathered)
                self.checked += 1
            gathered.clear()

        for module in self.trainer.mask_refresh.masker._dropped:
            module.register_forward_hook(after_projection, prepend=True)
        self.trainer.model.model.register_forward_hook(after_forward)


def check_row_sparse() -> None:
    """The same step with row-sparse gradients: selected rows up to the order of sums, everything else to the bit."""
    start = load_file(f"{MODEL}/model.safetensors")
    masked = run(make_trainer("masked", row_sparse_gradients="off", **ONE_STEP))
    check = WeightsAreFreed()
    for checkpointing in (True, False) if BACKEND != "fsdp2" else (False,):
        callbacks = [check] if BACKEND == "zero3" and not checkpointing else []
        settings = {**ONE_STEP, "row_sparse_gradients": "on", "gradient_checkpointing": checkpointing}
        trainer = make_trainer("row_sparse", callbacks, **settings)
        if BACKEND == "zero3":  # or weights as small as these are gathered for good
            config = trainer.accelerator.state.deepspeed_plugin.deepspeed_config
            config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        trained = run(trainer)
        assert "longact/grad_norm_selected_share" not in trainer.state.log_history[0]
        masks = masks_by_parameter(trainer)
        for name, weight in trained.items():
            mask = masks.get(name, torch.zeros(len(weight), dtype=torch.bool))
            assert torch.equal(weight[~mask], masked[name][~mask]), name
            error = (weight - masked[name]).norm() / (masked[name] - start[name]).norm()
            assert error < 1e-5, (name, error)
    assert check.checked == (2 if BACKEND == "zero3" else 0)  # micro-batches


def check_frozen_rows() -> None:
    """AdamW with momentum and decay, a new mask at each step."""
    frozen = {"update_rule": "frozen_rows", "optim": "adamw_torch", "weight_decay": 0.1}
    for strategy in ("random", "massive"):
        for bf16 in (False, True) if ZERO else (False,):
            check = FrozenRowsStayFrozen()
            trainer = make_trainer("frozen", [check], strategy=strategy, bf16=bf16, **frozen)
            run(trainer)
            assert check.steps == 4
            assert trainer.state.log_history[-2]["longact/mask_churn"] > 0


def check_resume() -> None:
    """Four steps at once end where two steps, a new process group's worth of objects, and two more steps end."""
    settings = {"update_rule": "frozen_rows", "save_strategy": "steps", "save_steps": 2}
    straight = run(make_trainer("straight", **settings))
    resumed = run(make_trainer("straight", **settings), resume_from_checkpoint=f"{OUT}/straight/checkpoint-2")
    for name in straight:
        assert torch.equal(straight[name], resumed[name]), name


if __name__ == "__main__":
    torch.set_num_threads(1)
    check_gradients()
    if not LORA:
        check_row_sparse()
    if BACKEND == "ddp":
        check_magnitudes()
    check_frozen_rows()
    check_resume()
    print(f"OK {BACKEND}{' lora' * LORA} rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}", flush=True)
