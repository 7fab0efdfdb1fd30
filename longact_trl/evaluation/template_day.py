"""The day that chat templates write into prompts: always the same, so that a run is the same on any day."""

from datetime import date


# Llama 3's and SmolLM3's templates write "today". Any day would do; this one is recorded in the results.
DAY = date(2025, 1, 1)
TEMPLATE_OPTIONS = {"strftime_now": DAY.strftime}
"""Arguments of `apply_chat_template` that fix it: a variable of a template wins over transformers' own function."""
