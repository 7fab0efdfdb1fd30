"""LongBench v2: 503 questions on long texts, four choices each (Table 1 of the paper)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ...rewards.answers import read_choice
from ..protocols import longbench_v2 as official
from .benchmark import Answer, Benchmark, Column, Part, Unit, Verdict


if TYPE_CHECKING:
    from ..prompter import Prompter

HUB_DATASET = "THUDM/LongBench-v2"
FILE = "data.json"
DIFFICULTIES, LENGTHS = ("easy", "hard"), ("short", "medium", "long")
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
) -> Iterator[dict]:
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
        `ValueError`: If the data cannot be read, or a row cannot be used.
    """
    budget = prompter.budget(official.MAX_NEW_TOKENS["cot" if task == "cot" else "answer"])
    for position, item in enumerate(_items(longbench_v2_data, num_samples)):
        if task == "cot_answer":
            if position not in first_responses:
                continue
            text = official.build_answer_prompt(item, first_responses[position])
        else:
            text = official.build_prompt(item, cot=task == "cot")
        row = {"position": position, "sample_id": str(item["_id"]), "gold": [item["answer"]], "max_new_tokens": budget}
        row |= {name: item[name] for name in ("difficulty", "length", "domain")}
        yield row | prompter.fit(text, official.MAX_PROMPT_TOKENS, budget)


def content(task: str, longbench_v2_data: str = HUB_DATASET, num_samples: int | None = None, **_: object) -> str:
    """Names the rows that are asked."""
    from ..benchmark_files import content_of

    return content_of(_items(longbench_v2_data, num_samples))


def _items(source: str, num_samples: int | None) -> Iterator[dict]:
    from ..benchmark_files import NAME, TEXT, one_of, read_rows

    fields = {"_id": NAME, "context": TEXT, "question": TEXT} | {f"choice_{letter}": TEXT for letter in "ABCD"}
    fields |= {"answer": one_of(*"ABCD"), "difficulty": one_of(*DIFFICULTIES), "length": one_of(*LENGTHS)}
    fields |= {"domain": TEXT}
    return read_rows("longbench_v2_data", source, FILE, num_samples, fields, one_file=False)


def score(row: Mapping, answer: Answer) -> Verdict:
    """Right or wrong: a letter alone in tags, as training reads it, else what the official script extracts."""
    if answer.response == "":  # left out, as officially
        return Verdict(None, None, answer.unfinished)
    letter = (answer.tagged and read_choice(answer.text)) or official.extract_answer(answer.text)
    return Verdict(float(letter == row["gold"][0]), letter, answer.unfinished)


def breakdown(units: Sequence[Mapping], samples: Mapping[str, Sequence[Mapping]]) -> dict:
    """The official table, and under `"compensated"` the one in which an answer that cannot be read is a quarter."""
    scored = [row for unit in units for row in samples[unit["name"]] if row["score"] is not None]
    pairs = [row | {"judge": row["score"], "pred": row["prediction"]} for row in scored]
    plain, compensated = (
        {name.lower(): value for name, value in official.breakdown(pairs, compensated).items()}
        for compensated in (False, True)
    )
    return plain | {"compensated": compensated}


def columns(lengths: Sequence[int] = ()) -> dict[str, Column]:
    """Overall, by difficulty, by length."""
    found = {"overall": Column("overall", (Part(),))}
    for field, names in (("difficulty", DIFFICULTIES), ("length", LENGTHS)):
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
    content=content,
    score=score,
    breakdown=breakdown,
    columns=columns,
    first_turns=FIRST_TURN,
    of_sample={"prediction": str | None, "difficulty": str, "length": str},
)
