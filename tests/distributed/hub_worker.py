"""Run by both ranks under ZeRO-3: the Hub refuses the first push, and takes the second. Prints OK."""

import os
import sys
from pathlib import Path

from helpers.trainers import make_trainer
from longact_trl.training.checkpoints import newest_complete_checkpoint


OUT, RANK = Path(sys.argv[1]), int(os.environ["RANK"])

trainer = make_trainer(
    OUT, sys.argv[2], max_steps=1, save_strategy="steps", save_steps=1, hub_model_id="me/tiny", ddp_timeout=300
)
trainer.train()
try:
    trainer.push_to_hub()
    raise SystemExit("the push did not fail")
except Exception as error:
    notes = "\n".join(error.__notes__)
    assert "403" in str(error) and f"the model is saved in {OUT}" in notes, (error, notes)
    assert ("The first rank could not create the repository" in str(error)) == (RANK > 0), error
assert newest_complete_checkpoint(OUT) == OUT / "checkpoint-1"
assert (OUT / "model.safetensors").is_file()
trainer.accelerator.wait_for_everyone()
trainer.push_to_hub()  # the same trainer, once the cause is removed
trainer.accelerator.wait_for_everyone()
print(f"OK {RANK}")
