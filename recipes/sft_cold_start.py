"""
The supervised cold start before RL: full fine-tuning on reasoning traces, loss on the response only.

    accelerate launch --config_file accelerate_configs/zero3.yaml recipes/sft_cold_start.py --config sft_qwen3_8b.yaml

- Does: TRL's SFTTrainer on 20,000 instruction-following samples of AM-DeepSeek-R1-0528-Distilled whose replies are
  written as `<think> ... </think> <answer> ... </answer>`, packed into sequences of 16,384 tokens.
- Leaves out: nothing that the paper describes (sec. 3.2 and 4.1). It does not say which samples were taken: here those
  of category `if`, at random. The dataset of 40 GB is streamed once for them.
- Hardware: 8×80 GB for sft_qwen3_8b.yaml and sft_qwen3_4b.yaml; two CPU cores for sft_tiny.yaml.
- Override any field: `--config sft_qwen3_8b.yaml --max_rows 1000 --learning_rate 1e-5`.
- Continue a run that stopped: add `--resume_from_checkpoint auto`.
- Then RL: `recipes/grpo_longact.py --config qwen3_8b.yaml`, which starts from `runs/sft_qwen3_8b`.
- What to see: `loss` falls and `mean_token_accuracy` rises. For sft_tiny.yaml they are written in it.
"""

import sys
from pathlib import Path

from longact_trl.settings.messages import usage_errors
from longact_trl.training.command_line import COLD_START, stop_at_mistakes


RECIPES = Path(__file__).parent
if __name__ == "__main__":  # a typo is told now: what follows takes many seconds to load
    stop_at_mistakes(COLD_START, sys.argv[1:], RECIPES)

from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config, get_quantization_config

from longact_trl.models.end_of_turn import check_end_of_turn
from longact_trl.models.reading import load_processing_class
from longact_trl.settings.recipe_yaml import model_init_kwargs, parse_recipe
from longact_trl.training.checkpoints import resolve_resume
from longact_trl.training.cold_start import ColdStartArguments, load_demonstrations
from longact_trl.training.preflight import source_of
from longact_trl.training.saved_names import SavedNamesTrainer


class ColdStartTrainer(SavedNamesTrainer, SFTTrainer):
    """TRL's, which also goes on with a mixture of experts."""


def train(argv: list[str]) -> None:
    script_args, args, model_args = parse_recipe((ColdStartArguments, SFTConfig, ModelConfig), argv, RECIPES)
    args.resume_from_checkpoint = resolve_resume(args.resume_from_checkpoint, args.output_dir)
    args.model_init_kwargs = model_init_kwargs(model_args, args.model_init_kwargs)
    check_end_of_turn(load_processing_class(model_args.model_name_or_path, **source_of(args)), args.eos_token)
    with args.main_process_first(desc="reading the data"):  # the other ranks find it in the cache
        dataset = load_demonstrations(script_args, args.seed)

    trainer = ColdStartTrainer(
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


if __name__ == "__main__":
    with usage_errors():
        train(sys.argv[1:])
