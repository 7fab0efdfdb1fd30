"""Where RULER's texts come from: a local path, the Hub, or a labelled stand-in."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import stand_in_documents, stand_in_prose
from .niah import Essay
from .protocol import TASKS
from .question_answering import Corpus, Question
from .words import all_words


STAND_IN = stand_in_prose.LABEL
ENCODING = "utf-8-sig"  # some editors put a mark of byte order before the first letter
HOW = {
    "essays": "PaulGrahamEssays.json as made by RULER's download_paulgraham_essay.py, a text file, a folder of them, "
    "or a Hub dataset with a `text` column such as 'sgoel9/paul_graham_essays'",
    "squad": "SQuAD's dev-v2.0.json, or 'rajpurkar/squad_v2' from the Hub",
    "hotpotqa": "hotpot_dev_distractor_v1.json, or 'hotpotqa/hotpot_qa' from the Hub",
    "english_words": "RULER's english_words.json or a text file with a word a line",
}
OR_STAND_IN = f"or {STAND_IN!r} for generated text that is labelled as such"
# A sentence ends with its mark and maybe a closing one, where a capital, a digit or an opening mark follows.
SENTENCE_END = re.compile(r"""(?:(?<=[.!?])|(?<=[.!?]["')\]])) (?=["'(\[]?[A-Z0-9])""")


@dataclass(frozen=True)
class Sources:
    """
    The texts that RULER's tasks are made of. Each is a path, a Hub dataset or `"stand-in"`; a task whose text is
    `None` raises a `ValueError` that says what to pass.

    Args:
        essays (`str`, *optional*): For the tasks with an essay haystack.
        squad (`str`, *optional*): For `qa_1` (CC BY-SA 4.0).
        hotpotqa (`str`, *optional*): For `qa_2` (CC BY-SA 4.0).
        english_words (`str`, *optional*, defaults to `"stand-in"`):
            For `cwe` where the 8,166 words of wonderwords are not enough: about 128k tokens and more.
    """

    essays: str | None = None
    squad: str | None = None
    hotpotqa: str | None = None
    english_words: str | None = STAND_IN

    @classmethod
    def stand_ins(cls) -> "Sources":
        """Stand-ins everywhere: needs nothing, and says so in every sample."""
        return cls(STAND_IN, STAND_IN, STAND_IN, STAND_IN)

    def load(self, name: str):
        """
        The text of `name`, one of the fields: an [`Essay`], a [`Corpus`], or words with their label.

        Raises:
            `ValueError`: If there is none or it cannot be read; says what to pass.
        """
        where = getattr(self, name)
        if where is None:
            raise ValueError(f"RULER needs {name}: pass Sources({name}=…) with {HOW[name]}, {OR_STAND_IN}")
        try:
            return _load(name, where, _stamps(where))
        except Exception as error:
            raise ValueError(f"{name}={where!r} cannot be read ({error}): pass {HOW[name]}, {OR_STAND_IN}") from error

    def texts(self, task: str) -> list:
        """All that a task is made of: of a source, what it loads as; nothing for tasks that need none."""
        family, args = TASKS[task].family, TASKS[task].args
        name = {"cwe": "english_words", "qa": args.get("dataset")}.get(family)
        name = "essays" if args.get("haystack") == "essay" else name
        if name is None:
            return []
        loaded = self.load(name)
        return loaded.sentences if isinstance(loaded, Essay) else list(loaded)


def field(of: object, name: str, where: str, kind: type = str):
    """A field of a JSON object. `ValueError` where it is missing or of another type; names both."""
    if not isinstance(of, dict) or name not in of:
        raise ValueError(f"{where} has no `{name}`")
    if not isinstance(of[name], kind):
        words = {str: "text", list: "a list", bool: "true or false"}[kind]
        raise ValueError(f"`{name}` of {where} must be {words}, but is {of[name]!r}")
    return of[name]


@cache
def _load(name: str, where: str, stamps: tuple):
    return LOADERS[name](where)


def _stamps(where: str) -> tuple:
    """What tells whether local files are still the ones that were read."""
    from ...data.files import stamp_of  # loads `datasets`, which a configuration is checked before

    path = Path(where)
    files = sorted(path.glob("*")) if path.is_dir() else [path] if path.is_file() else []
    return tuple((str(file), *stamp_of(str(file))) for file in files)


def load_essays(where: str) -> Essay:
    """The essays, cut into sentences."""
    if where == STAND_IN:
        return Essay(stand_in_prose.essay_sentences(), f"essay ({STAND_IN})")
    path = Path(where)
    if path.is_dir():
        text = "".join(file.read_text(encoding=ENCODING) for file in sorted(path.glob("*.txt")))
    elif path.suffix == ".json":
        text = field(json.loads(path.read_text(encoding=ENCODING)), "text", "the file")
    elif path.is_file():
        text = path.read_text(encoding=ENCODING)
    else:
        text = "\n".join(hub(where, "train")["text"])
    if not text.strip():
        raise ValueError("it has no text")
    return Essay(split_sentences(text), "essay")


def split_sentences(text: str) -> list[str]:
    """
    Sentences with single spaces between their words.

    RULER uses nltk's Punkt, whose model is a download of its own. The two differ at some abbreviations and quotes,
    which moves a needle by a sentence.
    """
    return SENTENCE_END.split(" ".join(text.split()))


def hub(where: str, split: str, name: str | None = None):
    """A split of a dataset from the Hub, or from a local folder that `datasets` can load."""
    from datasets import load_dataset

    return load_dataset(where, name, split=split)


def load_squad(where: str) -> Corpus:
    """SQuAD 2.0's development set: answerable questions, and all paragraphs as documents."""
    if where == STAND_IN:
        return stand_in_documents.squad()
    if Path(where).is_file():
        content = json.loads(Path(where).read_text(encoding=ENCODING))
        articles = [
            [_squad_paragraph(paragraph, f"paragraph {p} of article {a}") for p, paragraph in enumerate(paragraphs)]
            for a, article in enumerate(field(content, "data", "the file", list))
            for paragraphs in [field(article, "paragraphs", f"article {a}", list)]
        ]
    else:
        titles = {}
        for row in hub(where, "validation"):
            asked = titles.setdefault(row["title"], {}).setdefault(row["context"], [])
            asked += [(row["question"], row["answers"]["text"])] if row["answers"]["text"] else []
        articles = [list(paragraphs.items()) for paragraphs in titles.values()]
    documents = sorted({context for article in articles for context, _ in article})
    position = {context: d for d, context in enumerate(documents)}
    questions = []
    for article in articles:
        places = [position[context] for context, _ in article]
        for place, (_, asked) in zip(places, article, strict=True):
            related = [other for other in places if other != place]
            questions += [Question(query, outputs, [place], {place}, related) for query, outputs in asked]
    return Corpus(documents, questions, "squad")


def _squad_paragraph(paragraph: object, where: str) -> tuple[str, list]:
    asked = []
    for number, qa in enumerate(field(paragraph, "qas", where, list)):
        of = f"question {number} of {where}"
        if not field(qa, "is_impossible", of, bool):
            answers = [field(answer, "text", f"an answer to {of}") for answer in field(qa, "answers", of, list)]
            asked.append((field(qa, "question", of), _answers(answers, of)))
    return field(paragraph, "context", where), asked


def _answers(answers: list[str], of: str) -> list[str]:
    if not answers or not all(answer.strip() for answer in answers):
        raise ValueError(f"{of} has the answers {answers}, of which one at least must be there, and none empty")
    return answers


def load_hotpotqa(where: str) -> Corpus:
    """HotpotQA's development set with distractors: ten documents to a question, two of them needed."""
    if where == STAND_IN:
        return stand_in_documents.hotpotqa()
    if Path(where).is_file():
        content = json.loads(Path(where).read_text(encoding=ENCODING))
        if not isinstance(content, list):
            raise ValueError("the file is no list of questions")
        rows = [_hotpotqa_row(row, f"question {number}") for number, row in enumerate(content)]
    else:
        rows = [
            (
                row["question"],
                row["answer"],
                list(zip(row["context"]["title"], row["context"]["sentences"], strict=True)),
                set(row["supporting_facts"]["title"]),
            )
            for row in hub(where, "validation", "distractor")
        ]
    texts = [[(title, f"{title}\n{''.join(sentences)}") for title, sentences in context] for _, _, context, _ in rows]
    documents = sorted({text for context in texts for _, text in context})
    position = {text: d for d, text in enumerate(documents)}
    questions = [
        Question(
            query,
            [answer],
            [position[text] for _, text in context],
            {position[text] for title, text in context if title in supporting},
            [],
        )
        for (query, answer, _, supporting), context in zip(rows, texts, strict=True)
    ]
    return Corpus(documents, questions, "hotpotqa")


def _hotpotqa_row(row: object, where: str) -> tuple:
    query, [answer] = field(row, "question", where), _answers([field(row, "answer", where)], where)
    supporting = _pairs(row, "supporting_facts", where, lambda number: isinstance(number, int))
    context = _pairs(row, "context", where, lambda texts: isinstance(texts, list) and all(map(_is_text, texts)))
    return query, answer, context, {title for title, _ in supporting}


def _pairs(row: dict, name: str, where: str, is_second: Callable[[object], bool]) -> list:
    for pair in field(row, name, where, list):
        if not (isinstance(pair, list) and len(pair) == 2 and _is_text(pair[0]) and is_second(pair[1])):
            raise ValueError(f"`{name}` of {where} holds {pair!r}, no pair of a title and what belongs to it")
    return row[name]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def load_english_words(where: str) -> tuple[tuple[str, ...], str]:
    """The longer word list and its label."""
    if where == STAND_IN:
        return stand_in_prose.english_words(all_words()), f"english words ({STAND_IN})"
    text = Path(where).read_text(encoding=ENCODING)
    words = json.loads(text) if where.endswith(".json") else text.split("\n")
    words = words.values() if isinstance(words, dict) else words
    return tuple(sorted({word.strip() for word in words} - {""})), "english words"


LOADERS = {
    "essays": load_essays,
    "squad": load_squad,
    "hotpotqa": load_hotpotqa,
    "english_words": load_english_words,
}
