"""A few steps of dense RL on a pretrained model, to see which rows it moves without any mask.

    python benchmarks/smollm2_dense.py runs/smollm2_dense
    longact drift $(python benchmarks/smollm2.py) runs/smollm2_dense

SmolLM2-135M-Instruct learns to find codes in synthetic contexts. It has had no cold start and never writes the tags,
so the share of the right answers that stand in a completion is its reward. On one core ten minutes.
"""

import argparse

from smollm2 import smollm2_135m

from longact_trl import LongActConfig, LongActTrainer
from longact_trl.analysis.gradients.prompts import contained_reward, synthetic_prompts
from longact_trl.models.reading import load_tokenizer


def train(output_dir: str, max_steps: int, learning_rate: float, tokens: int) -> None:
    """
    Train, print each step's reward, and save the model.

    Args:
        output_dir (`str`):
            Where to save it.
        max_steps (`int`):
            Optimizer steps of 4 prompts with 8 completions each.
        learning_rate (`float`):
            AdamW's.
        tokens (`int`):
            Of a prompt.
    """
    folder = str(smollm2_135m())
    tokenizer = load_tokenizer(folder)
    prompts = synthetic_prompts(tokenizer, tokens, 4 * max_steps).filter(lambda row: row["num_tokens"] == tokens)
    args = LongActConfig(
        output_dir,
        strategy="dense",
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=32,
        num_generations=8,
        max_completion_length=32,
        max_steps=max_steps,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
    )
    trainer = LongActTrainer(folder, contained_reward, args, prompts, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(output_dir)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir")
    parser.add_argument("--max-steps", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--tokens", type=int, default=256)
    options = parser.parse_args()
    train(options.output_dir, options.max_steps, options.learning_rate, options.tokens)
