"""
The supervised cold start before RL: full fine-tuning on reasoning traces, loss on the response only.

    accelerate launch --config_file accelerate_configs/zero3.yaml recipes/sft_cold_start.py --config sft_qwen3_8b.yaml

- Does: TRL's SFTTrainer on 20,000 samples of AM-DeepSeek-R1-0528-Distilled whose replies are written as
  `<think> ... </think> <answer> ... </answer>`, packed into sequences of 16,384 tokens.
- Leaves out: nothing that the paper describes. It does not say which samples were taken: here at random.
- Hardware: 8×80 GB for sft_qwen3_8b.yaml and sft_qwen3_4b.yaml; two CPU cores for sft_tiny.yaml.
- Override any field: `--config sft_qwen3_8b.yaml --max_rows 1000 --learning_rate 1e-5`.
- Continue a run that stopped: add `--resume_from_checkpoint auto`.
- Then RL: `recipes/grpo_longact.py --config qwen3_8b.yaml --model_name_or_path runs/sft_qwen3_8b`.
- What to see: `loss` falls and `mean_token_accuracy` rises. For sft_tiny.yaml they are written in it.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from trl import ModelConfig, ScriptArguments, SFTConfig, SFTTrainer, get_peft_config, get_quantization_config

from longact_trl.data.am_deepseek import HUB_ID, load_am_deepseek
from longact_trl.data.tiny_tasks import make_dataset
from longact_trl.settings.recipe_yaml import model_init_kwargs, parse_recipe
from longact_trl.training.checkpoints import resolve_resume


RECIPES = Path(__file__).parent


@dataclass
class RecipeArguments(ScriptArguments):
    """
    What the recipe adds to TRL's script arguments.

    Args:
        dataset_name (`str`, *optional*, defaults to `"a-m-team/AM-DeepSeek-R1-0528-Distilled"`):
            Hub id, file or folder in the schema of AM-DeepSeek-R1-0528-Distilled, or `"tiny_tasks"` for the embedded
            model's tasks with their demonstrations.
        data_files (`str`, *optional*):
            Files of the dataset to read, such as `"*math*"`. Default all.
        max_rows (`int`, *optional*, defaults to `20000`):
            Rows to take, at random.
    """

    dataset_name: str = field(
        default=HUB_ID,
        metadata={
            "help": "Hub id, file or folder in the schema of AM-DeepSeek-R1-0528-Distilled, or `'tiny_tasks'` for the "
            "embedded model's tasks with their demonstrations."
        },
    )
    data_files: str | None = field(
        default=None,
        metadata={"help": "Files of the dataset to read, such as `'*math*'`. Default all."},
    )
    max_rows: int = field(default=20_000, metadata={"help": "Rows to take, at random."})


def main(argv: list[str]) -> None:
    script_args, args, model_args = parse_recipe((RecipeArguments, SFTConfig, ModelConfig), argv, RECIPES)
    args.resume_from_checkpoint = resolve_resume(args.resume_from_checkpoint, args.output_dir)
    args.model_init_kwargs = model_init_kwargs(model_args, args.model_init_kwargs)
    with args.main_process_first(desc="reading the data"):  # the other ranks find it in the cache
        dataset = load_demonstrations(script_args, args.seed)

    trainer = SFTTrainer(
        model=model_args.model_name_or_path,
        args=args,
        train_dataset=dataset,
        peft_config=get_peft_config(model_args),
        quantization_config=get_quantization_config(model_args),
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model(args.output_dir)
    trainer.accelerator.print(f"Model saved to {args.output_dir}.")
    if args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)


def load_demonstrations(script_args: RecipeArguments, seed: int) -> Dataset:
    """Prompts and completions, as messages."""
    if script_args.dataset_name != "tiny_tasks":
        rows = load_am_deepseek(
            script_args.dataset_name,
            script_args.dataset_train_split,
            script_args.data_files,
            script_args.max_rows,
            seed,
        )
        return rows.select_columns(["prompt", "completion"])
    rows = make_dataset(script_args.max_rows, seed)
    completions = [[{"role": "assistant", "content": text}] for text in rows["demonstration"]]
    return Dataset.from_dict({"prompt": rows["prompt"], "completion": completions})


if __name__ == "__main__":
    main(sys.argv[1:])
