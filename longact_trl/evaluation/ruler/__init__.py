"""
RULER's 13 tasks (arXiv:2404.06654), generated for any tokenizer and length, and its metrics.

Followed is NVIDIA/RULER at c3f5e3b4 (2026-07-22), which differs from the RULER of 2024 (hsiehjackson/RULER at
e40fae14) in this: the answer prefix is the beginning of the assistant's turn, after the chat template, where in 2024
it stood in the user's; the texts of `vt` say "assigned" (2024: "assgined"); the answers of the solved example of `cwe`
follow a space; essays and documents repeat where they are shorter than the sample. Scores before and after are close
but not the same.

What differs from c3f5e3b4 itself, and why:

- The chat template is the tokenizer's own. In RULER it is one of eleven strings, which a question about one needle
  also rewrites ("answers" to "answer") and which surrounds the solved example of `cwe` a second time. For models
  without a chat template, and in the NeMo-Skills pipeline that RULER's README recommends, there is no such difference.
- Samples are as long as the budget allows: RULER fits one sample and shortens others in large steps, so that some stay
  well below. The last documents of `qa_1` and `qa_2` are ones that still fit.
- Random numbers come from a generator for each sample, so data with RULER's seed are alike but not identical.
- Sentences of the essays end where a rule says so, not nltk's Punkt model (see `sources.split_sentences`).
- Below about 2k tokens, `qa_2` leaves out distractors of its ten documents, never the two that are needed.
- Where `cwe` needs more words than wonderwords has, RULER's list (a Git LFS file) must be given or is stood in for.
"""

from .fitting import count_tokens, render
from .protocol import TASKS as _TASKS
from .samples import iter_samples, make_samples
from .scoring import postprocess, score, score_batch
from .sources import Sources


TASKS = tuple(_TASKS)

__all__ = [
    "TASKS",
    "Sources",
    "count_tokens",
    "iter_samples",
    "make_samples",
    "postprocess",
    "render",
    "score",
    "score_batch",
]
