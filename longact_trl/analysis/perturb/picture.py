"""The picture of `longact perturb`: loss by text, loss by dose, accuracy and repetition."""

from pathlib import Path
from typing import TYPE_CHECKING

from ...pictures.axes import tidy
from ...pictures.heatmaps import KINDS


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette; markers and hatches tell the conditions apart without colour.
COLORS = {"none": "#7f7f7f", "top": "#D55E00", "random": "#0072B2", "bottom": "#009E73"}
MARKERS = {"top": "^", "random": "o", "bottom": "v"}
HATCHES = {"none": "", "top": "//", "random": "..", "bottom": "\\\\"}


def draw_study(summary: dict) -> "Figure":
    """
    Draw a study.

    Args:
        summary (`dict`):
            As [`~longact_trl.analysis.perturb.summary.summarise`] returns it.

    Returns:
        `matplotlib.figure.Figure`
    """
    from matplotlib.figure import Figure

    settings = summary["settings"]
    figure = Figure((15, 4.9), dpi=100, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    kinds = " and ".join(KINDS[kind] for kind in settings["projections"].split(","))
    figure.suptitle(
        f"{Path(settings['model']).name} with {settings['sparsity_ratio']:.0%} of each head's channels of {kinds} "
        "clamped to their mean",
        fontsize=14,
        fontweight="bold",
        x=0.01,
        ha="left",
    )
    axes = figure.subplots(1, 3, width_ratios=(1.15, 1.1, 1))
    _losses(axes[0], summary)
    _dose(axes[1], summary)
    _accuracy(axes[2], summary)
    return figure


def _losses(axis: "Axes", summary: dict) -> None:
    tidy(axis, "Loss (nats a token), 95 % intervals over chunks")
    ratio, texts = summary["settings"]["sparsity_ratio"], list(summary["losses"])
    for number, (condition, color) in enumerate(COLORS.items()):
        x = [place + 0.21 * (number - 1.5) for place in range(len(texts))]
        means = [summary["losses"][text][condition][ratio] for text in texts]
        _bars(axis, x, means, 0.19, color, HATCHES[condition], condition)
    axis.set_xticks(range(len(texts)), texts)
    axis.set_ylim(0, axis.get_ylim()[1] * 1.22)
    axis.legend(frameon=False, fontsize=9, ncols=4, loc="upper left", columnspacing=1.0, handlelength=1.4)


def _dose(axis: "Axes", summary: dict) -> None:
    tidy(axis, "Loss by the share that is clamped (thin: each text)")
    texts = list(summary["losses"].values())
    for condition, marker in MARKERS.items():
        ratios = sorted(texts[0][condition])
        curves = [[text[condition][ratio]["value"] for ratio in ratios] for text in texts]
        for curve in curves if len(curves) > 1 else []:
            axis.plot(ratios, curve, color=COLORS[condition], linewidth=0.8, alpha=0.5)
        mean = [sum(values) / len(values) for values in zip(*curves, strict=True)]
        axis.plot(ratios, mean, color=COLORS[condition], linewidth=2.4, marker=marker, markersize=6, label=condition)
    none = [next(iter(text["none"].values()))["value"] for text in texts]
    axis.axhline(sum(none) / len(none), color=COLORS["none"], linestyle="--", linewidth=1.4, label="none")
    axis.set_xlabel("λ, share of each head's channels")
    axis.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axis.set_ylim(0, None)
    axis.legend(frameon=False, fontsize=9)


def _accuracy(axis: "Axes", summary: dict) -> None:
    settings = summary["settings"]
    tidy(axis, f"{settings['task']}: accuracy, 95 % intervals, and repetition")
    for place, (condition, answers) in enumerate(summary["answers"].items()):
        _bars(axis, [place], [answers["accuracy"]], 0.6, COLORS[condition], HATCHES[condition], None)
        text = f"{answers['accuracy']['value']:.0%}"
        axis.text(place, answers["accuracy"]["high"] + 0.02, text, ha="center", fontweight="bold")
        repeated = answers["longest_repeat"] / max(answers["tokens"], 1)
        axis.text(place, -0.16, f"{repeated:.0%}", ha="center", va="top", fontsize=9)
    axis.text(-0.45, -0.11, "tokens in the answer's longest repetition:", fontsize=9, color="0.3", va="top")
    axis.set_xticks(range(len(summary["answers"])), list(summary["answers"]))
    axis.set_ylim(0, 1.12)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])


def _bars(axis: "Axes", x: list, intervals: list[dict], width: float, color: str, hatch: str, label) -> None:
    values = [interval["value"] for interval in intervals]
    below, above = ([abs(i[end] - i["value"]) for i in intervals] for end in ("low", "high"))
    axis.bar(x, values, width, color=color, hatch=hatch, edgecolor="white", linewidth=0, label=label)
    axis.errorbar(x, values, [below, above], fmt="none", ecolor="0.15", elinewidth=1.2, capsize=3)
