"""Noise that nobody can act on is not shown, everything else is."""

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

from longact_trl.settings.quiet import UNHELPFUL, UNHELPFUL_WARNINGS, quiet


SOURCES = {
    "bitsandbytes.backends.cpu.ops": "bitsandbytes/backends/cpu/ops.py",
    "vllm.triton_utils.importing": "vllm/triton_utils/importing.py",
    "DeepSpeed": "deepspeed/accelerator/real_accelerator.py",
}


@pytest.mark.parametrize("name", UNHELPFUL)
def test_only_that_message_is_left_out(name, monkeypatch):
    logger, shown = logging.getLogger(name), []
    handler = logging.Handler()
    handler.emit = lambda record: shown.append(record.getMessage())
    for attribute, value in (("filters", []), ("handlers", [handler]), ("propagate", False)):  # whoever has set others
        monkeypatch.setattr(logger, attribute, value)
    logger.warning(UNHELPFUL[name])
    quiet()
    quiet()
    assert len(logger.filters) == 1
    logger.warning(UNHELPFUL[name] + ": %s", "and more")
    logger.warning("Your disk is full.")
    assert shown == [UNHELPFUL[name], "Your disk is full."]


@pytest.mark.parametrize("beginning", UNHELPFUL_WARNINGS)
def test_only_that_warning_is_left_out(beginning):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        quiet()
        warnings.warn(f"{beginning}, write another", FutureWarning, stacklevel=1)
        warnings.warn(f"Not so: {beginning}", FutureWarning, stacklevel=1)
    assert [str(warning.message)[:6] for warning in shown] == ["Not so"]


@pytest.mark.parametrize("name", SOURCES)
def test_the_libraries_still_say_it_so(name):
    package = find_spec(SOURCES[name].split("/")[0])  # found, not imported
    source = Path(package.origin).parents[1] / SOURCES[name]
    assert UNHELPFUL[name] in source.read_text(encoding="utf-8")
