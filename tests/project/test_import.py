"""What a user pays for `import longact_trl`, and what the package promises to hold."""

import subprocess
import sys

import pytest

import longact_trl


HEAVY = {"vllm", "deepspeed", "lm_eval", "wandb", "trackio", "matplotlib", "peft", "trl", "transformers", "torch"}


def loaded_by(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_import_loads_nothing_heavy():
    assert not HEAVY & loaded_by("import longact_trl")


def test_the_method_and_the_rewards_need_no_trainer():
    loaded = loaded_by("from longact_trl import select_rows, format_reward, measure_magnitudes")
    assert not {"vllm", "deepspeed", "lm_eval", "trl"} & loaded


@pytest.mark.parametrize("name", longact_trl.__all__)
def test_every_public_name_is_there(name):
    assert getattr(longact_trl, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="LongActTrainr"):
        getattr(longact_trl, "LongActTrainr")  # noqa: B009


def test_the_configuration_loads_no_more_than_trls():
    """Neither a trainer nor vLLM nor datasets: what TRL's own configuration loads, and this package."""
    code = "from trl import GRPOConfig\nimport sys\nbefore = set(sys.modules)\nfrom longact_trl import LongActConfig"
    command = [sys.executable, "-c", f"{code}\nprint(*sorted(set(sys.modules) - before))"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    added = done.stdout.split()
    assert {name.split(".")[0] for name in added} == {"longact_trl"}
    assert len(added) < 25


def test_what_earlier_runs_have_pickled_is_found():
    """`training_args.bin` names the module that the configuration was in until the rooms were made."""
    from longact_trl.config import LongActConfig

    assert LongActConfig is longact_trl.LongActConfig
