"""A training set out of several sources, written down in YAML: which, how many rows of each, one seed."""

import inspect
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from ..settings.recipe_yaml import read_config
from .docqa import HUB_ID, NUM_ROWS, load_docqa
from .length import prompt_lengths
from .memagent import load_memagent
from .mixture_file import check_mixture
from .rows import RL_FEATURES
from .synthetic import load_synthetic
from .tiny_tasks import make_dataset


def load_tiny_tasks(
    num_prompts: int = 1000,
    seed: int = 0,
    split: str = "train",
    context_words: tuple[int, int] = (48, 128),
    num_needles: tuple[int, int] = (6, 16),
) -> Dataset:
    """
    Needles, several needles and chains of needles in the words of the embedded model's tokenizer, see
    [`~longact_trl.data.tiny_tasks`]. The prompts do not ask for tags, which that model writes anyway.

    Args:
        num_prompts (`int`, *optional*, defaults to `1000`):
            Rows to generate.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the generator.
        split (`str`, *optional*, defaults to `"train"`):
            `train` or `test`: no question is asked in both.
        context_words (`tuple[int, int]`, *optional*, defaults to `(48, 128)`):
            Fewest and most words of a context.
        num_needles (`tuple[int, int]`, *optional*, defaults to `(6, 16)`):
            Fewest and most facts in a context.

    Returns:
        `Dataset` with columns `prompt` (messages), `answer` (`list[str]`), `answer_kind`, `task`.
    """
    rows = make_dataset(num_prompts, seed, split=split, context_words=context_words, num_needles=num_needles)
    return rows.select_columns(list(RL_FEATURES)).cast(RL_FEATURES)


LOADERS = {
    "docqa": load_docqa,
    "memagent": load_memagent,
    "synthetic": load_synthetic,
    "tiny_tasks": load_tiny_tasks,
}


def load_mixture(
    mixture: str | Path | dict,
    tokenizer: PreTrainedTokenizerBase | None = None,
    chat_template_kwargs: dict | None = None,
    max_prompt_length: int | None = None,
) -> Dataset:
    """
    Load the sources of a mixture, take the rows asked for from each at random, and shuffle them together.

    Where prompts over the window will be left out, `num_rows` are drawn among those that fit: MemAgent's are about as
    long as the paper's window, and 1,000 drawn first would be far fewer afterwards.

    ```yaml
    seed: 42
    sources:
      - loader: docqa        # all of it
      - loader: memagent
        num_rows: 1000       # drawn at random
        source: data/hotpotqa_train_32k.parquet
      - loader: synthetic    # generated
        tokens: 16384        # every prompt, exactly
        tasks: [multi_query, two_hops]
        num_prompts: 500
    ```

    Args:
        mixture (`str`, `Path` or `dict`):
            YAML file or its content: `seed` and `sources`. A source has a `loader`, maybe `num_rows` (default all),
            and the arguments of that loader.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            The run's tokenizer, with a chat template: `synthetic` needs it.
        chat_template_kwargs (`dict`, *optional*):
            What training passes to the template.
        max_prompt_length (`int`, *optional*):
            Tokens that a drawn prompt may have, by `tokenizer`. Default any number.

    Returns:
        `Dataset` with columns `prompt`, `answer`, `answer_kind`, `task`.

    Raises:
        `ValueError`: If the mixture names what does not exist or more rows than a source has (that fit). Names are
            checked before any source is read.
    """
    if not isinstance(mixture, dict):
        path = Path(mixture)
        if not path.is_file():
            raise ValueError(f"mixture {str(mixture)!r} is no file: give the path of a YAML file")
        mixture = read_config(path)
    check_mixture(mixture)
    seed = mixture["seed"]
    for source in mixture["sources"]:
        _check_tokenizer(source, tokenizer)
    of_the_run = {"tokenizer": tokenizer, "chat_template_kwargs": chat_template_kwargs}
    parts = [_load_part(source, seed, of_the_run, max_prompt_length) for source in mixture["sources"]]
    return concatenate_datasets(parts).shuffle(seed=seed)


def source_names(mixture: str | Path) -> list[str]:
    """
    What a mixture is made of, for a model card.

    Args:
        mixture (`str` or `Path`):
            YAML file, as [`load_mixture`] takes it.

    Returns:
        `list[str]`: Hub id, file or folder of each source, or the loader's name where it generates its rows.
    """
    names = []
    for source in read_config(Path(mixture))["sources"]:
        default = inspect.signature(LOADERS[source["loader"]]).parameters.get("source")
        names.append(source.get("source") or (default.default if default else source["loader"]))
    return names


def expected_rows(mixture: str | Path) -> int | None:
    """
    How many rows a mixture has, without reading any.

    Args:
        mixture (`str` or `Path`):
            YAML file, as [`load_mixture`] takes it.

    Returns:
        `int` or `None`: At most; `None` where only the files themselves say so.
    """
    counts = []
    for source in read_config(Path(mixture))["sources"]:
        count = source.get("num_rows") or source.get("num_prompts")
        if count is None and source["loader"] == "docqa" and source.get("source", HUB_ID) == HUB_ID:
            count = NUM_ROWS.get(source.get("split", "train"))
        counts.append(count)
    return None if None in counts else sum(counts)


def _check_tokenizer(source: dict, tokenizer: PreTrainedTokenizerBase | None) -> None:
    if source["loader"] == "synthetic" and (tokenizer is None or tokenizer.chat_template is None):
        raise ValueError("source 'synthetic' needs the tokenizer of the run, with a chat template: pass `tokenizer`")


def _load_part(source: dict, seed: int, of_the_run: dict, max_prompt_length: int | None) -> Dataset:
    load = LOADERS[source["loader"]]
    options = {name: value for name, value in source.items() if name not in ("loader", "num_rows")}
    options |= {name: value for name, value in of_the_run.items() if name in inspect.signature(load).parameters}
    rows = load(**options).select_columns(list(RL_FEATURES))
    num_rows = source.get("num_rows")
    if num_rows is None:
        return rows
    if num_rows > len(rows):
        raise ValueError(f"source {source['loader']!r} has {len(rows)} good rows: set num_rows to at most that")
    shuffled = rows.shuffle(seed=seed)
    if max_prompt_length is None:
        return shuffled.select(range(num_rows))
    return _first_that_fit(shuffled, num_rows, max_prompt_length, source["loader"], of_the_run)


def _first_that_fit(rows: Dataset, num_rows: int, max_prompt_length: int, loader: str, of_the_run: dict) -> Dataset:
    """The first `num_rows` rows that fit. Measures no more of them than it takes, in lots of `num_rows`."""
    fitting: list[int] = []
    for start in range(0, len(rows), num_rows):
        lot = range(start, min(start + num_rows, len(rows)))
        lengths = prompt_lengths(rows.select(lot), **of_the_run)
        fitting += [index for index, length in zip(lot, lengths, strict=True) if length <= max_prompt_length]
        if len(fitting) >= num_rows:
            return rows.select(fitting[:num_rows])
    raise ValueError(
        f"source {loader!r} has {len(fitting)} good rows of at most {max_prompt_length} tokens: set num_rows to at "
        "most that, allow longer ones (`vllm_max_model_length`), or set `prompt_length_policy` to 'truncate_middle'"
    )
