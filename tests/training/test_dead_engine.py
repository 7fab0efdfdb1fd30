"""vLLM dies while it generates, or is not there: the run says so, and one with a new engine ends at the same bits."""

import json
import sys
from pathlib import Path

import pytest

from helpers.forking import run_forked


def run(folder: Path) -> None:
    """A run left alone, one whose engine is shut down in the middle of a generation, and that one continued."""
    from functools import partial

    import torch
    import trl.generation.vllm_generation as generation

    from helpers.models import make_model, make_tokenizer
    from helpers.trainers import make_args, make_prompts, spread_reward
    from helpers.weights import weights_of
    from longact_trl import LongActTrainer
    from longact_trl.training.checkpoints import newest_complete_checkpoint

    generation.LLM = partial(generation.LLM, dtype="float32", enforce_eager=True)  # quick to start
    model = folder / "model"
    make_model().save_pretrained(model)
    make_tokenizer().save_pretrained(model)
    colocate = {"vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.1, "vllm_max_model_length": 64}

    def make(name: str, **kwargs) -> LongActTrainer:
        settings = {"use_vllm": True, "max_steps": 4, "save_strategy": "steps", "save_steps": 1, **kwargs}
        return LongActTrainer(str(model), [spread_reward], make_args(folder / name, **settings), make_prompts())

    result = {}
    try:
        make("server", vllm_mode="server", vllm_server_port=1, vllm_server_timeout=1.0)
    except Exception as error:
        result["server"] = f"{type(error).__name__}: {error}"
    whole = make("whole", **colocate)
    whole.train()

    stopped = make("stopped", **colocate)
    engine = stopped.vllm_generation.llm.llm_engine
    forwards = []

    def shut_down(*args) -> None:
        if stopped.state.global_step == 2:
            forwards.append(1)
            if len(forwards) == 3:  # two tokens of this generation are there
                engine.engine_core.shutdown()

    engine.model_executor.driver_worker.model_runner.model.register_forward_pre_hook(shut_down)
    try:
        stopped.train()
    except Exception as error:
        result["died"] = [len(forwards), type(error).__name__, *error.__notes__]
    result["newest"] = str(newest_complete_checkpoint(folder / "stopped"))

    resumed = make("stopped", **colocate)
    resumed.train(resume_from_checkpoint="auto")
    expected = weights_of(whole.model)
    result["steps"] = resumed.state.global_step
    result["same"] = all(torch.equal(weight, expected[name]) for name, weight in weights_of(resumed.model).items())
    print("RESULT", json.dumps(result))


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = run_forked(__file__, tmp_path_factory.mktemp("runs"), timeout=600, **settings)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return json.loads(done.stdout.split("RESULT", 1)[1].splitlines()[0])


def test_the_run_says_from_where_it_can_be_continued(result):
    forwards, _, note = result["died"]
    assert forwards == 3
    assert result["newest"].endswith("stopped/checkpoint-2")
    assert f"{result['newest']} is complete: once the cause above is removed, continue from it" in note


def test_with_a_new_engine_it_ends_at_the_bits_of_a_run_left_alone(result):
    assert result["steps"] == 4 and result["same"]


def test_a_server_that_is_not_there_is_named(result):
    assert "ConnectionError" in result["server"] and "http://0.0.0.0:1 after 1.0 seconds" in result["server"]


if __name__ == "__main__":
    run(Path(sys.argv[1]))
