"""A run that goes on where another stopped, to the same bits: what TRL does not save, or loads otherwise."""

from collections import defaultdict
from pathlib import Path

from accelerate.utils import is_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from trl import GRPOTrainer

from .checkpoints import check_strategy, how_to_continue, naming_unreadable, resolve_resume, skip_epochs
from .mask_file import STATE_DIR
from .saved_names import SavedNamesTrainer


AT_THE_TOP = "default"
"""The adapter that PEFT saves beside the subfolders of all others, such as `ref`, TRL's frozen copy with `beta` above
0."""


class ResumingTrainer(SavedNamesTrainer, GRPOTrainer):
    """
    [`~trl.GRPOTrainer`] whose checkpoints hold the completions that are generated and not yet trained on, are complete
    once `trainer_state.json` is there, and are continued from to the same bits.
    """

    _train_sampler = None  # an iterable dataset has none

    def train(self, resume_from_checkpoint=None, **kwargs):
        """
        Train.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                `"auto"` continues from the newest complete checkpoint in `output_dir`, or starts where there is none;
                a folder or `True` as in [`~transformers.Trainer`].

        Returns:
            `TrainOutput`: As [`~transformers.Trainer.train`].

        Raises:
            `ValueError`: If `output_dir` holds another run's checkpoints and none is resumed from, or if the
                checkpoint does not fit this run.
            `Exception`: Whatever stops a run carries a note that says from where it can be continued.
        """
        if resume_from_checkpoint or self.state.global_step == 0:
            resume_from_checkpoint = resolve_resume(resume_from_checkpoint, self.args.output_dir)
            if resume_from_checkpoint is not None:
                check_strategy(resume_from_checkpoint, self.args.strategy)
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        except Exception as error:
            error.add_note(how_to_continue(self.args.output_dir, self.state.global_step))
            raise

    @property
    def _generate_every(self) -> int:
        """Micro-batches that one generation serves."""
        return self.args.steps_per_generation * self.num_iterations

    def _get_train_sampler(self, dataset=None):
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        self._save_rollouts(output_dir)
        # What Trainer writes after this, on the main process, is trainer_state.json. It completes the checkpoint.
        self.accelerator.wait_for_everyone()

    def _load_rng_state(self, checkpoint):
        with naming_unreadable(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        dtypes = {name: param.dtype for name, param in self.model.named_parameters()}
        with naming_unreadable(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            if is_peft_model(self.model) and AT_THE_TOP in self.model.peft_config and len(self.model.peft_config) > 1:
                self._load_adapter_at_the_top(resume_from_checkpoint)
        for name, param in self.model.named_parameters():
            if param.dtype != dtypes[name]:  # PEFT loads in float32 what TRL trains in bfloat16 (QLoRA)
                param.data = param.data.to(dtypes[name])

    def _load_adapter_at_the_top(self, checkpoint: str | Path) -> None:
        """Trainer looks for adapters in folders only: where it finds others there, it leaves this one unread."""
        trained = self.model.active_adapter
        self.model.load_adapter(str(checkpoint), AT_THE_TOP, is_trainable=trained == AT_THE_TOP)
        self.model.set_adapter(trained)

    def _load_best_model(self):
        """Trainer looks at the top only, where an adapter of another name is none, or is not the one that learned."""
        super()._load_best_model()
        if is_peft_model(self.model) and (trained := self.model.active_adapter) != AT_THE_TOP:
            saved = Path(self.state.best_model_checkpoint, trained)
            self.model.load_adapter(str(saved), trained, is_trainable=True)

    def _load_optimizer_and_scheduler(self, checkpoint):
        with naming_unreadable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
            if checkpoint is not None:
                self._load_rollouts(checkpoint)
        if checkpoint is not None and self._train_sampler is not None:
            skip_epochs(self._train_sampler, checkpoint)

    def _save_rollouts(self, checkpoint: str | Path) -> None:
        """
        Write the completions that this rank has generated and not yet trained on. TRL forgets them, so a run resumed
        between two optimizer steps of one generation would take other samples than the run it continues.
        """
        batches = self._buffered_inputs if self._step % self._generate_every else []
        tensors = {f"{i}/{key}": t.contiguous().clone() for i, batch in enumerate(batches) for key, t in batch.items()}
        file = self._rollouts_file(checkpoint)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, file, metadata={"step": str(self._step)})

    def _load_rollouts(self, checkpoint: str | Path) -> None:
        """Restore what `_save_rollouts` wrote, on the same number of ranks."""
        file = self._rollouts_file(checkpoint)
        if not file.is_file():
            return
        with safe_open(file, "pt") as saved:
            self._step = int(saved.metadata()["step"])
            batches: dict[int, dict] = defaultdict(dict)
            for name in saved.keys():
                index, key = name.split("/", 1)
                batches[int(index)][key] = saved.get_tensor(name).to(self.accelerator.device)
        if len(batches) not in (0, self.args.steps_per_generation):
            raise ValueError(
                f"{checkpoint} was written in the middle of a generation with `steps_per_generation={len(batches)}`. "
                f"Resume with the same value, not {self.args.steps_per_generation}."
            )
        self._buffered_inputs = [batches[i] for i in range(len(batches))] or None

    def _rollouts_file(self, checkpoint: str | Path) -> Path:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return Path(checkpoint, STATE_DIR, f"rollouts-{rank}-of-{world}.safetensors")
