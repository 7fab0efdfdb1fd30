"""
Write docs/models.md from docs/models.tsv, what `python benchmarks/families.py` found:
`tests/project/test_models_page.py` compares.

    python docs/make_models.py
"""

import csv
from pathlib import Path


DOCS = Path(__file__).parent
NOT_TRAINED = ("TRL's load-balancing loss", "TRL computes log-probs")
REFUSED = ("LongAct needs the", "has no attention layer")
WITHIN, ACROSS = "shared within micro-batches", "shared across micro-batches"
COLUMNS = ("family", "projections", "rows", "magnitudes", "masks", WITHIN, ACROSS, "step")

# ruff: noqa: E501 (tables)
HEAD = """# Models

Made by `python docs/make_models.py` from `docs/models.tsv`, which `python benchmarks/families.py` writes: every decoder
family of transformers as a tiny random model. `@` names a variant.

{counts}

- **rows, magnitudes, masks**: the rows taken for Q's and K's heads are theirs and all of theirs; Eq. 2 and masked
  gradients equal brute force, with and without row-sparse gradients.
- **projections**: the modules that hold the rows of Q and K, as `longact check` says of your model.
- **shared within, across** (micro-batches): log-probs, entropies and gradients of rows that are packed behind one pass
  of their prompt equal plain ones, in one micro-batch or in several, whole and in chunks; `-` where prompts are
  forwarded again. A load-balancing loss is shared within micro-batches: `router_aux_loss_coef: 0` shares across.
  `longact check` says why, and `shared_prefix: "on"` raises it.
- **step**: a step of `LongActTrainer` leaves unselected rows their bits and moves others.

Everything that is refused is refused before weights are loaded, but for custom code (`trust_remote_code`): its
projections are looked for once the model is there, and `longact check` says that it cannot know.

## What Eq. 2 means where a head is not one row of rows

| attention | W_Q | W_K |
|---|---|---|
| gated (Qwen3-Next, Qwen3.5) | queries only; the rows of each head's gate train dense | as usual |
| latent (DeepSeek's MLA) | all channels of a head, rotated or not, in `q_b_proj` or `q_proj` | per head in `kv_b_proj`, beside V's rows, which train dense; the rotated channels in `kv_a_proj_with_mqa` are one head that all share, with a top-k of its own |
| K makes V too (Gemma 4's `attention_k_eq_v`, DeepSeek-V4) | as usual | none: rows that make V train dense |
| K and V of another layer (Gemma 3n, 4) | as usual | where they are made |
| one block in several layers (Zamba, HRM) | one mask for one weight; every run of it adds to its magnitude | the same |
| hybrids | of the attention layers; recurrent layers train dense | the same |
| with a vision tower | of the text decoder; everything else trains as TRL trains it | the same |

## Families

"""


def page() -> str:
    """The page as it should be."""
    with (DOCS / "models.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    works = [row for row in rows if all(row[c] == "ok" for c in ("rows", "magnitudes", "masks", "step"))]
    by_trl = [row for row in rows if row["step"] == "ok" or row["TRL's step"] == "ok"]
    refused = [row for row in by_trl if any(text in row["step"] for text in REFUSED)]
    counts = (
        f"Of {len(rows)} families and variants TRL's GRPOTrainer trains {len(by_trl)} as they are; of those, "
        f"{len(works)} take a step that is right, {len(refused)} are refused with a reason."
    )
    lines = ["| family | projections | rows | magnitudes | masks | shared within | across | step |", "|---" * 8 + "|"]
    for row in rows:
        cells = [row[column] for column in COLUMNS]
        if any(text in row["step"] for text in (*REFUSED, *NOT_TRAINED)):
            cells[-1] = "refused: " + row["step"].partition(": ")[2]
        if any(text in row["projections"] for text in REFUSED):
            cells[1] = "-"
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return HEAD.format(counts=counts) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    (DOCS / "models.md").write_text(page())
