"""LongBench v2: 503 questions on long texts, four choices each (Table 1 of the paper)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...rewards.answers import read_choice
from ..protocols import longbench_v2 as official
from .benchmark import Answer, Benchmark, Column, Part, Unit, Verdict


if TYPE_CHECKING:
    from ..prompter import Prompter

HUB_DATASET = "THUDM/LongBench-v2"
FILE = "data.json"
FIELDS = ("_id", "domain", "difficulty", "length", "context", "question", "answer")
FIELDS += tuple(f"choice_{letter}" for letter in "ABCD")
FIRST_TURN = {"cot_answer": "cot"}


def units(longbench_v2_cot: bool = False, **_: object) -> list[Unit]:
    """One unit, in one turn or two."""
    return [Unit("longbench_v2", "cot_answer" if longbench_v2_cot else "answer")]


def rows(
    prompter: "Prompter",
    task: str,
    longbench_v2_data: str = HUB_DATASET,
    num_samples: int | None = None,
    first_responses: Mapping[int, str] | None = None,
    **_: object,
) -> list[dict]:
    """
    One turn of its questions.

    Args:
        prompter (`Prompter`):
            The model's.
        task (`str`):
            `"answer"` asks for the answer at once, `"cot"` for reasoning; `"cot_answer"` is the second turn after it.
        longbench_v2_data (`str`, *optional*):
            Hub id, or local `data.json`, parquet file or folder.
        num_samples (`int`, *optional*):
            Take the first ones; `None` takes all 503.
        first_responses (`Mapping[int, str]`, *optional*):
            For `"cot_answer"`: the first turn's responses by `position`. An item without one is left out, as
            officially.

    Raises:
        `ValueError`: If the data cannot be read.
    """
    from ..benchmark_files import read_rows

    budget = prompter.budget(official.MAX_NEW_TOKENS["cot" if task == "cot" else "answer"])
    made = []
    items = read_rows("longbench_v2_data", longbench_v2_data, FILE, num_samples, FIELDS, one_file=False)
    for position, item in enumerate(items):
        if task == "cot_answer":
            if position not in first_responses:
                continue
            text = official.build_answer_prompt(item, first_responses[position])
        else:
            text = official.build_prompt(item, cot=task == "cot")
        row = {"position": position, "sample_id": item["_id"], "gold": [item["answer"]], "max_new_tokens": budget}
        row |= {name: item[name] for name in ("difficulty", "length", "domain")}
        made.append(row | prompter.fit(text, official.MAX_PROMPT_TOKENS, budget))
    return made


def score(row: Mapping, answer: Answer) -> Verdict:
    """Right or wrong: a letter alone in tags, as training reads it, else what the official script extracts."""
    if answer.response == "":  # left out, as officially
        return Verdict(None, None, answer.unfinished)
    letter = (answer.tagged and read_choice(answer.text)) or official.extract_answer(answer.text)
    return Verdict(float(letter == row["gold"][0]), letter, answer.unfinished)


def breakdown(units: Sequence[Mapping], samples: Mapping[str, Sequence[Mapping]]) -> dict:
    """The official table."""
    table = {}
    for unit in units:
        scored = [row for row in samples[unit["name"]] if row["score"] is not None]
        pairs = [row | {"judge": row["score"], "pred": row["prediction"]} for row in scored]
        table |= {name.lower(): value for name, value in official.breakdown(pairs).items()}
    return table


def columns(lengths: Sequence[int] = ()) -> dict[str, Column]:
    """Overall, by difficulty, by length."""
    found = {"overall": Column("overall", (Part(),))}
    for field, names in (("difficulty", ("easy", "hard")), ("length", ("short", "medium", "long"))):
        for name in names:
            part = Part(keep=lambda row, field=field, name=name: row[field] == name)
            found[name] = Column(name, (part,))
    return found


BENCHMARK = Benchmark(
    name="longbench_v2",
    title="LongBench v2",
    dataset=HUB_DATASET,
    metric="accuracy",
    units=units,
    rows=rows,
    score=score,
    breakdown=breakdown,
    columns=columns,
    first_turns=FIRST_TURN,
)
