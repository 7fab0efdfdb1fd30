"""Weights that are saved by other names than a model has them."""

from pathlib import Path

from accelerate.utils import is_peft_model
from transformers import Trainer

from ..models.weight_files import WeightFiles


class SavedNamesTrainer(Trainer):
    """
    [`~transformers.Trainer`] that reads all weights of its checkpoints. They are saved as published checkpoints have
    them, such as experts one by one or a vision-language model's by older names, and Trainer itself leaves those as
    they were before.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_weights_of_other_names(resume_from_checkpoint)

    def _load_best_model(self):
        super()._load_best_model()
        self._load_weights_of_other_names(self.state.best_model_checkpoint)

    def _load_weights_of_other_names(self, checkpoint: str | Path) -> None:
        if self.is_deepspeed_enabled or self.is_fsdp_enabled or is_peft_model(self.model):
            return  # whose checkpoints have the names of the model
        if not WeightFiles(checkpoint).names <= self.model.state_dict().keys():
            saved = type(self.model).from_pretrained(checkpoint, dtype=self.model.dtype)
            self.model.load_state_dict(saved.state_dict())
