"""The page of `longact inspect`: one HTML file that needs nothing else, neither a server nor a network."""

import base64
import json
from pathlib import Path

import torch

from ...method.masks import select_rows
from ...pictures.heatmaps import COLORMAP, KINDS, kind_of, layer_of, shared_norm
from ...settings.whole_files import write_whole
from .activations import SITES
from .inspection import Inspection


TEMPLATE = Path(__file__).parents[2] / "assets" / "inspect.html"
STEPS = 65_535  # a magnitude is stored as a step between the smallest and the largest logarithm, to 1 part in 5,000


def write_page(inspection: Inspection, summary: dict, output: Path) -> None:
    """
    Write `index.html` with all magnitudes and the pictures `overview.png` and `statistics.png` inside.

    Args:
        inspection (`Inspection`):
            What was measured.
        summary (`dict`):
            As its `summarise` returns it.
        output (`Path`):
            Folder with the two pictures.
    """
    data = page_data(inspection, summary)
    for name in ("overview", "statistics"):
        picture = base64.b64encode((output / f"{name}.png").read_bytes()).decode()
        data[name] = f"data:image/png;base64,{picture}"
    # A file's name can hold `</script>` or `<!--`, which mean something also within a text.
    text = json.dumps(data).replace("<", "\\u003c")
    write_whole(output / "index.html", TEMPLATE.read_text("utf-8").replace("__DATA__", text))


def page_data(inspection: Inspection, summary: dict) -> dict:
    """
    What the page's script reads.

    Args:
        inspection (`Inspection`):
            What was measured.
        summary (`dict`):
            As its `summarise` returns it.

    Returns:
        `dict`: `panels` has for each text and projection its magnitudes as little-endian uint16 in base64, steps from
        `low` to `high` of the natural logarithm, and its selected rows as bytes of 0 and 1.
    """
    from matplotlib import colormaps

    texts = inspection.whole()
    magnitudes = [m for named in texts.values() for m in named.values()]
    positive = torch.cat([m[m > 0].flatten() for m in magnitudes])
    low, high = positive.min().log().item(), positive.max().log().item()
    norm = shared_norm(magnitudes)
    panels = []
    for text, named in texts.items():
        for name, magnitude in named.items():
            steps = (magnitude.clamp(min=positive.min()).log() - low) / max(high - low, 1e-9) * STEPS
            entry = summary["projections"][name]
            panels.append(
                {
                    "text": text,
                    "layer": layer_of(name),
                    "kind": KINDS[kind_of(name)],
                    "heads": magnitude.shape[0],
                    "channels": magnitude.shape[1],
                    "magnitude": _base64(steps.round().clamp(0, STEPS).to(torch.int32).numpy().astype("<u2")),
                    "selected": _base64(select_rows(magnitude, inspection.sparsity_ratio).numpy().astype("u1")),
                    "energy": entry["energy_share"][text],
                    "peak": entry["max_over_median"][text],
                }
            )
    colours = [[round(255 * c) for c in colormaps[COLORMAP](i)[:3]] for i in range(256)]
    return {
        "model": inspection.model,
        "site": SITES[inspection.site],
        "ratio": inspection.sparsity_ratio,
        "tokens": summary["tokens"],
        "low": low,
        "high": high,
        "colourLow": float(torch.tensor(norm.vmin).log()),
        "colourHigh": float(torch.tensor(norm.vmax).log()),
        "colours": colours,
        "panels": panels,
    }


def _base64(array) -> str:
    return base64.b64encode(array.tobytes()).decode()
