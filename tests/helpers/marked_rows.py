"""Rows of each source that say in their prompt which split they are of, and what loads them."""

import json
from functools import partial

from longact_trl.data.am_deepseek import load_am_deepseek
from longact_trl.data.docqa import load_docqa
from longact_trl.data.memagent import load_memagent
from longact_trl.data.rows import read_prompts

from .data import read_fixture


def own(split):
    return {"prompt": split, "answer": "a"}


def docqa(split):
    row = json.loads(json.dumps(read_fixture("docqa.jsonl")[0]))
    return {**row, "prompt": [{"role": "user", "content": split}]}


def memagent(split):
    row = read_fixture("memagent.jsonl")[0]
    return {**row, "prompt": [{"role": "user", "content": split}]}


def am_deepseek(split):
    return {**read_fixture("am_deepseek.jsonl")[0], "system": split}


LOADERS = {"own": (read_prompts, own), "docqa": (load_docqa, docqa), "memagent": (load_memagent, memagent)}
LOADERS["am_deepseek"] = (partial(load_am_deepseek, category="all"), am_deepseek)
