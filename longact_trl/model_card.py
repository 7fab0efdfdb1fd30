"""What a model card says about LongAct, beside what TRL writes."""

from pathlib import Path

from .callback import MaskRefreshCallback


def add_longact(card: Path, mask_refresh: MaskRefreshCallback) -> None:
    """
    Add a section to a model card that TRL has written.

    Args:
        card (`Path`):
            `README.md` of the model.
        mask_refresh (`MaskRefreshCallback`):
            The run's masks and settings.
    """
    args = mask_refresh.args
    rows = sum(p.num_heads * p.head_dim for p in mask_refresh.projections)
    selected = sum(int(mask.sum()) for mask in mask_refresh.masks.values())
    density = f"{selected} of {rows} rows of W_Q and W_K at the last step" if mask_refresh.masks else "all rows"
    section = f"""## LongAct

While this model was trained, W_Q and W_K learned only in the rows behind selected activation channels of each head,
selected anew at every optimizer step. It is a plain checkpoint: nothing of this is needed to use it.

| setting | value |
|---|---|
| strategy | {args.strategy} |
| sparsity_ratio (λ) | {args.sparsity_ratio} |
| update_rule | {args.update_rule} |
| saliency_source | {args.saliency_source} |
| loss_type | {args.loss_type} |
| density | {density} |

"""
    before, framework, after = card.read_text(encoding="utf-8").partition("### Framework versions")
    card.write_text(before + section + framework + after, encoding="utf-8")
