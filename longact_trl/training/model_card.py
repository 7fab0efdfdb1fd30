"""What a model card says about LongAct, its data and its results, beside what TRL writes."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, metadata_load
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from .._version import __version__
from ..pictures.reward_curve import draw_rewards
from ..settings.whole_files import whole_file
from .mask_refresh import MaskRefreshCallback


PAPER = {
    "title": "LongAct: Harnessing Intrinsic Activation Patterns for Long-Context Reinforcement Learning",
    "id": "2604.14922",
    "citation": """\
@misc{ping2026longact,
  title         = {LongAct: Harnessing Intrinsic Activation Patterns for Long-Context Reinforcement Learning},
  author        = {Bowen Ping and Zijun Chen and Tingfeng Hui and Qize Yu and Chenxuan Li and Junchi Yan and
                   Baobao Chang},
  year          = {2026},
  eprint        = {2604.14922},
  archivePrefix = {arXiv},
  note          = {ACL 2026}
}""",
}
"""The paper of the method (arXiv:2604.14922), as TRL's model card cites it."""
PICTURE = "reward_curve.png"
END = "### Framework versions\n"
"""What TRL writes after the part about training."""
MASKED = """While this model was trained, W_Q and W_K learned only in the rows behind selected activation channels of
each head, selected anew at every optimizer step. It is a plain checkpoint: nothing of this is needed to use it."""
DENSE = "This model was trained with LongAct's masks off, to compare with: all rows of W_Q and W_K learned."


def add_longact(
    card_file: Path,
    mask_refresh: MaskRefreshCallback,
    log_history: list[dict],
    base_model: str,
    datasets: Sequence[str] = (),
    license: str | None = None,
) -> None:
    """
    Complete a model card that TRL has written.

    Args:
        card_file (`Path`):
            `README.md` of the model.
        mask_refresh (`MaskRefreshCallback`):
            The run's masks and settings.
        log_history (`list[dict]`):
            What was logged, as in [`~transformers.TrainerState`].
        base_model (`str`):
            Hub id or folder of the model that was trained, empty where it has neither. A folder's own card may say
            what it was made from.
        datasets (`Sequence[str]`, *optional*):
            Hub ids, which the metadata take, and names of other data.
        license (`str`, *optional*):
            Licence of the model as the Hub names it, e.g. `"apache-2.0"`. None is named where none is given.
    """
    card = ModelCard.load(card_file)
    card.data.pop("licence")  # TRL's, which the Hub does not read
    card.data.license = license
    card.data.tags = sorted(card.data.tags)
    card.data.datasets = [name for name in datasets if is_hub_id(name)] or None
    if not base_model or Path(base_model).is_dir():
        card.data.base_model = _base_of(base_model)
        card.text = card.text.replace("[None](https://huggingface.co/None)", _link_of(card.data.base_model))
    card.text = card.text.replace(END, f"{END}\n- LongAct: {__version__}", 1)
    _insert(card, _about_training(mask_refresh, log_history, datasets))
    card.save(card_file)


def add_reward_curve(card_file: Path, log_history: list[dict]) -> None:
    """
    Draw the reward curve beside a model card, and show it there.

    Args:
        card_file (`Path`):
            `README.md` of the model.
        log_history (`list[dict]`):
            What was logged, as in [`~transformers.TrainerState`]. Without a reward there is no curve.
    """
    figure = draw_rewards(log_history)
    if figure is not None:
        with whole_file(card_file.with_name(PICTURE)) as scratch:
            figure.savefig(scratch)
        card = ModelCard.load(card_file)
        _insert(card, f"![Mean reward of each step]({PICTURE})\n\n")
        card.save(card_file)


def add_eval_results(card_file: str | Path, eval_results: Sequence[EvalResult]) -> None:
    """
    Write results into a model card: metadata that the Hub shows, and a table. For results that come after the run.

    Args:
        card_file (`str` or `Path`):
            `README.md` of the model.
        eval_results (`Sequence[EvalResult]`):
            Numbers, with the protocol in `metric_name`.

    Raises:
        `ValueError`: If the card has no `model_name`.
    """
    card = ModelCard.load(card_file)
    if card.data.model_name is None:
        raise ValueError(f"{card_file} names no model: write `model_name: …` into its metadata.")
    card.data.eval_results = list(eval_results)
    rows = "".join(
        f"| {r.dataset_name} | {r.metric_name or r.metric_type} | {r.metric_value} |\n" for r in eval_results
    )
    table = f"## Evaluation\n\n| benchmark | protocol | score |\n|---|---|---|\n{rows}\n"
    before, end, after = card.text.partition(END)
    card.text = before.partition("## Evaluation\n")[0] + end + after  # without those of an earlier evaluation
    _insert(card, table)
    card.save(Path(card_file))


def is_hub_id(name: str) -> bool:
    """
    Whether a name can be a repository's and is nothing on this disk.

    Args:
        name (`str`):
            What was given as a dataset.

    Returns:
        `bool`
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name and not Path(name).exists()


def _base_of(folder: str) -> str | None:
    """What a local model was made from, by its card: the cold start's output leads to the model it began with."""
    card = Path(folder, "README.md")
    return (metadata_load(card) or {}).get("base_model") if folder and card.is_file() else None


def _link_of(base_model: str | None) -> str:
    return f"[{base_model}](https://huggingface.co/{base_model})" if base_model else "a local checkpoint"


def _insert(card: ModelCard, section: str) -> None:
    before, end, after = card.text.partition(END)
    card.text = before + section + end + after


def _about_training(mask_refresh: MaskRefreshCallback, log_history: list[dict], datasets: Sequence[str]) -> str:
    args = mask_refresh.args
    rows = sum(p.num_heads * p.head_dim for p in mask_refresh.projections)
    selected = sum(int(mask.sum()) for mask in mask_refresh.masks.values())
    density = f"{selected} of {rows} rows of W_Q and W_K at the last step" if mask_refresh.masks else "all rows"
    churns = [entry["longact/mask_churn"] for entry in log_history if "longact/mask_churn" in entry]
    churn = f"{sum(churns) / len(churns):.3f} of the mask changed at a refresh, on average" if churns else "none"
    data = ", ".join(name if is_hub_id(name) else Path(name).name for name in datasets) or "not named"
    how = MASKED if mask_refresh.strategy.masks else DENSE
    return f"""## LongAct

{how}

| setting | value |
|---|---|
| strategy | {args.strategy} |
| sparsity_ratio (λ) | {args.sparsity_ratio} |
| update_rule | {args.update_rule} |
| saliency_source | {args.saliency_source} |
| loss_type | {args.loss_type} |
| density | {density} |
| churn | {churn} |
| data | {data} |

"""
