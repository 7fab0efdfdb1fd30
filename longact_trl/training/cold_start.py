"""What the recipe of the supervised cold start shares with `longact check`: its own arguments, and its data."""

from dataclasses import dataclass, field

from datasets import Dataset
from trl import ScriptArguments

from ..data.am_deepseek import CATEGORY, HUB_ID, load_am_deepseek
from ..data.tiny_tasks import make_dataset


@dataclass
class ColdStartArguments(ScriptArguments):
    """
    What the recipe adds to TRL's script arguments.

    Args:
        dataset_name (`str`, *optional*, defaults to `"a-m-team/AM-DeepSeek-R1-0528-Distilled"`):
            Hub id, file or folder in the schema of AM-DeepSeek-R1-0528-Distilled, or `"tiny_tasks"` for the embedded
            model's tasks with their demonstrations.
        data_files (`str`, *optional*):
            Files of the dataset to read, such as `"*if*"`. Default all.
        category (`str`, *optional*, defaults to `"if"`):
            Category of the rows to take: `if` (instruction following), another one of the dataset, or `all`.
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
        metadata={"help": "Files of the dataset to read, such as `'*if*'`. Default all."},
    )
    category: str = field(
        default=CATEGORY,
        metadata={
            "help": "Category of the rows to take: `if` (instruction following), another one of the dataset, or `all`."
        },
    )
    max_rows: int = field(default=20_000, metadata={"help": "Rows to take, at random."})


def load_demonstrations(script_args: ColdStartArguments, seed: int) -> Dataset:
    """
    Read the demonstrations that a recipe's arguments name.

    Args:
        script_args (`ColdStartArguments`):
            The recipe's own arguments.
        seed (`int`):
            Of the draw of rows.

    Returns:
        `Dataset` with columns `prompt` and `completion`, both lists of messages.

    Raises:
        `ValueError`: If what is named cannot be read.
    """
    if script_args.dataset_name != "tiny_tasks":
        rows = load_am_deepseek(
            script_args.dataset_name,
            script_args.dataset_train_split,
            script_args.data_files,
            script_args.category,
            script_args.max_rows,
            seed,
        )
        return rows.select_columns(["prompt", "completion"])
    rows = make_dataset(script_args.max_rows, seed)
    completions = [[{"role": "assistant", "content": text}] for text in rows["demonstration"]]
    return Dataset.from_dict({"prompt": rows["prompt"], "completion": completions})
