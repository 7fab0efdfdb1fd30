"""
Write the two pages that are made from the code, so that they cannot drift from it: `tests/test_docs.py` compares.

    python docs/make_reference.py
"""

import dataclasses
import re
from pathlib import Path

from trl import GRPOConfig

from longact_trl import LongActConfig


DOCS = Path(__file__).parent
RECIPES = DOCS.parent / "recipes"
SETTING = re.compile(r"^(?P<key>[\w ]+): (?P<value>[^#]+?) +# (?P<source>.+)$")


def configuration() -> str:
    """Every field that `LongActConfig` adds to `GRPOConfig`, or whose default it changes."""
    theirs = {f.name: f.default for f in dataclasses.fields(GRPOConfig)}
    ours = [f for f in dataclasses.fields(LongActConfig) if f.name not in theirs or f.default != theirs[f.name]]
    ours.sort(key=lambda f: f.name in theirs)  # what is new comes first
    rows = [(f"`{f.name}`", f"`{f.default!r}`", plain(f.metadata["help"])) for f in ours]
    return f"""# Configuration reference

Made by `python docs/make_reference.py` from `LongActConfig`. These are the fields that it adds to TRL's
[`GRPOConfig`](https://huggingface.co/docs/trl/grpo_trainer#trl.GRPOConfig), or whose default it changes. All others
are TRL's and mean what they mean there. In a recipe they stand in the YAML or on the command line
(`--sparsity_ratio 0.2`).

{table(("field", "default", "meaning"), rows)}"""


def paper_index() -> str:
    """Every value in a recipe's YAML that has a source, by file."""
    page = """# Paper index

Made by `python docs/make_reference.py` from the comments in `recipes/`: every value of every run and where it is from.
"paper" is LongAct; "DAPO" is arXiv:2503.14476; Clip-Cov and KL-Cov are arXiv:2505.22617. "ours" is a choice of this
package, "the paper is silent" says that it gives no value. A file that names a `base` has the base's values, too.
"""
    for file in sorted(RECIPES.rglob("*.yaml")):
        found = [match for line in file.read_text(encoding="utf-8").splitlines() if (match := SETTING.match(line))]
        if found:
            rows = [(f"`{m['key'].strip()}`", f"`{m['value']}`", plain(m["source"])) for m in found]
            page += f"\n## {file.relative_to(RECIPES).as_posix()}\n\n{table(('key', 'value', 'source'), rows)}"
    return page


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plain(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {"configuration.md": configuration, "paper_index.md": paper_index}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
