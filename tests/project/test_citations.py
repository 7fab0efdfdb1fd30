"""What is cited of the paper (LongAct, arXiv:2604.14922) stands there; what does not is said to be ours."""

import re
from pathlib import Path

import pytest
import yaml

from helpers.paths import RECIPES, ROOT


SECTIONS = {"1", "2", "3", "3.1", "3.2", "3.3", "4", "4.1", "4.2", "4.3", "4.4", "4.5", "4.6", "5", "6"}
LAST = {"Eq": 12, "Table": 7, "Fig": 6}
"""Numbers of the paper's last equation, table and figure."""

SFT_DATA = "a-m-team/AM-DeepSeek-R1-0528-Distilled"
COLD_START = {
    "dataset_name": [(SFT_DATA, "sec. 4.1")],
    "category": [("if", "sec. 4.1")],  # "20k open-source instruction-following samples"
    "max_rows": [(20_000, "sec. 4.1")],
    "completion_only_loss": [(True, "sec. 3.2, Eq. 7")],
    "max_length": [(16_384, "sec. 4.1")],
    "packing": [(True, "sec. 4.1")],
    "max_steps": [(900, "sec. 4.1")],
    "learning_rate": [(2e-5, "sec. 4.1")],
    "lr_scheduler_type": [("cosine", "sec. 4.1")],
    "warmup_steps": [(0.03, "sec. 4.1")],
    "model_name_or_path": [("Qwen/Qwen3-8B-Base", "sec. 4.1"), ("Qwen/Qwen3-4B-Base", "Table 1")],
}
RL = {
    "mixture": [("mixture.yaml", "sec. 4.1")],  # DocQA-RL-1.6K and "randomly 1K samples from MemAgent"
    "model_name_or_path": [("runs/sft_qwen3_8b", "sec. 3.2"), ("runs/sft_qwen3_4b", "sec. 3.2")],
    "strategy": [("massive", "Eq. 9"), ("dense", "sec. 4.1"), ("min", "sec. 4.5, Table 5")],
    "sparsity_ratio": [(0.3, "sec. 4.1"), (0.2, "sec. 4.6, Table 6"), (0.4, "sec. 4.6, Table 6")],
    "update_rule": [("masked_gradient", "Eq. 11")],
    "saliency_source": [("current_batch", "sec. 3.3")],
    "scale_rewards": [("group", "Eq. 6")],
    "num_generations": [(16, "sec. 4.1")],
    "gradient_accumulation_steps": [(4, "sec. 4.1")],  # a batch of 8 prompts, see the file's head
    "temperature": [(1.0, "sec. 4.1")],
    "max_completion_length": [(4096, "sec. 4.1")],
    "vllm_max_model_length": [(32_768, "sec. 4.1")],
    "learning_rate": [(1e-6, "sec. 4.1")],
    "loss_type": [("grpo", "Eq. 5")],
    "epsilon_high": [(0.2, "Eq. 5")],
}
RL["strategy"].append(("random", "sec. 4.5, Table 5"))
STATED = {"sft": COLD_START, "rl": RL}
"""What the paper says where, read from it: value and place of every setting that a recipe may cite it for."""

PLACE = r"(?:sec\. \d(?:\.\d)?|Eq\. \d+|Table \d)"
CITED = re.compile(rf"paper, ({PLACE}(?:, {PLACE})*)\b")
ELSEWHERE = ("DAPO, sec. ", "DAPO's released recipe", "Clip-Cov", "KL-Cov", "ours", "the paper is silent; ")
LINE = re.compile(r"^(?P<key>\w+): +(?P<value>.+?) +# (?P<source>.+)$")
RECIPE_FILES = [
    p for p in sorted(RECIPES.rglob("*.yaml")) if "qwen3" in p.name or re.match(r".*_(base|arm)\.yaml", p.name)
]
TEXTS = [*RECIPES.rglob("*.yaml"), *RECIPES.rglob("*.py"), *(ROOT / "longact_trl").rglob("*.py")]
TEXTS += [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "studies").glob("*.yaml")]
TEXTS += [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "accelerate_configs").glob("*.yaml")]
OTHERS = r"(DAPO|GRPO|arXiv:(?!2604\.14922))[^.;)]{0,30}$"
"""Before a number: it is another paper's."""


def settings() -> list[tuple[Path, str, object, str]]:
    found = []
    for path in RECIPE_FILES:
        for line in path.read_text().splitlines():
            if match := LINE.match(line):
                found.append((path, match["key"], yaml.safe_load(match["value"]), match["source"]))
    return found


@pytest.mark.parametrize(
    "path, key, value, source", settings(), ids=lambda part: getattr(part, "name", str(part))[:30]
)
def test_a_recipe_cites_what_the_paper_says_there(path, key, value, source):
    if not source.startswith("paper"):
        assert source.startswith(ELSEWHERE), f"{path.name}: {key} does not say where it is from"
        return
    cited = CITED.match(source)
    assert cited, f"{path.name}: {key} cites no section, equation or table: {source}"
    stage = "sft" if path.name.startswith("sft_") else "rl"
    assert (value, cited[1]) in STATED[stage].get(key, []), f"{path.name}: {key}: {value} cites {cited[1]}"


def test_all_that_the_paper_says_is_in_a_recipe():
    found = {(path.name[:4] == "sft_", key, value) for path, key, value, source in settings() if source[:5] == "paper"}
    for stage, stated in STATED.items():
        for key, places in stated.items():
            for value, _ in places:
                assert (stage == "sft", key, value) in found, (key, value)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_cited_exists(path):
    text = re.sub(r"\s+(?:# |\* )?", " ", path.read_text())
    for match in re.finditer(r"\b([Ss]ec|Eq|Tables?|Figs?|Figures?)\b\.? (A|\d+(?:\.\d+)?)(?:[–-](\d+))?", text):
        kind, first, last = match.groups()
        if re.search(OTHERS, text[max(0, match.start() - 60) : match.start()]):
            continue
        where = f"{path.name}: {text[match.start() - 30 : match.end() + 20]!r}"
        if kind.lower() == "sec":
            assert first in SECTIONS, where
        else:
            end = LAST["Table" if kind.startswith("Table") else "Eq" if kind == "Eq" else "Fig"]
            assert all(1 <= int(number) <= end for number in (first, last) if number), where


EQUATIONS = {
    "method/magnitude.py": "Eq. 1–2",
    "method/sparsity.py": "Eq. 9",
    "method/masks.py": "Eq. 8–10",
    "method/gradients.py": "Eq. 10–11",
    "method/row_sparse.py": "Eq. 11",
    "rewards/tagged.py": "Eq. 12",
}


@pytest.mark.parametrize("file, equations", EQUATIONS.items())
def test_a_file_of_the_method_begins_with_its_equations(file, equations):
    assert equations in (ROOT / "longact_trl" / file).read_text().splitlines()[0]


def test_the_paper_is_cited_by_its_authors():
    authors = ["Bowen Ping", "Zijun Chen", "Tingfeng Hui", "Qize Yu", "Chenxuan Li", "Junchi Yan", "Baobao Chang"]
    from longact_trl.training.model_card import PAPER

    [paper] = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    assert [f"{a['given-names']} {a['family-names']}" for a in paper["authors"]] == authors
    assert re.sub(r"\s+", " ", PAPER["citation"]).count(" and ".join(authors)) == 1
    assert paper["title"] == PAPER["title"] and paper["url"].endswith(PAPER["id"])
    assert f"https://arxiv.org/abs/{PAPER['id']}" in (ROOT / "README.md").read_text()
