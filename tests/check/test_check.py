"""Each check fails on a configuration made to fail it, and what ships passes as far as a machine offline can tell."""

import io
import json
import re
import shutil
import sys
from pathlib import Path
from unittest.mock import ANY

import huggingface_hub
import pytest
import torch
import trl.import_utils as trl_imports
import yaml
from rich.console import Console
from transformers import MambaConfig

from helpers.check import DISK_USAGE
from helpers.data import write_jsonl
from helpers.paths import FIXTURES
from longact_trl.check import machine
from longact_trl.check.command import check, check_run
from longact_trl.check.memory.plan import GIB
from longact_trl.check.verdict import FAIL, PASS, UNKNOWN, WARN
from longact_trl.data.docqa import convert_row
from longact_trl.data.rows import InvalidRow
from longact_trl.quickstart import MODEL


pytestmark = pytest.mark.usefixtures("offline_machine")


def verdicts_of(*args, **kwargs) -> dict[str, tuple[str, str]]:
    return {verdict.check: (verdict.status, verdict.text) for verdict in check(*args, **kwargs)[1]}


def test_a_good_configuration_passes_every_check(write):
    verdicts = verdicts_of(write())
    assert {name: status for name, (status, _) in verdicts.items()} == dict.fromkeys(verdicts, PASS)
    assert len(verdicts) == 18
    assert verdicts["batch"][1].endswith("16 sequences a step; a generation of 2 prompts × 8 completions lasts 1 step")
    assert (
        "floor(0.3·32) = 9 channels (28.1%) of each of 8 query and 4 key heads; Q in q_proj, K in k_proj, in 2 layers"
        in (verdicts["model and λ"][1])
    )


def model_with(folder: Path, template: str | None = None, **changes) -> str:
    shutil.copytree(MODEL, folder)
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    if template:
        with (folder / "chat_template.jinja").open("a") as file:
            file.write(template)
    return str(folder)


YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 4096}
GPUS = {"use_cpu": None, "bf16": True, "dtype": "bfloat16"}
EAGER = {"attn_implementation": "eager"}
VLLM = {**GPUS, "use_vllm": True, "vllm_mode": "colocate"}
LORA = {"use_peft": True, "lora_target_modules": ["q_proj", "k_proj"], "lora_r": 4}
MANY = {**GPUS, "per_device_train_batch_size": 512, "gradient_checkpointing": False}
SMALL_SHARE = {"vllm_gpu_memory_utilization": 0.0251, "vllm_max_model_length": 200}
CASES = {  # check: changes of the configuration, arguments of the check, verdict, what it says
    "unknown key": ("configuration", {"sparsity_ration": 0.3}, {}, FAIL, "Did you mean `sparsity_ratio`"),
    "no such file": ("configuration", None, {}, FAIL, "There is no config"),
    "λ of 0": ("configuration", {"sparsity_ratio": 0}, {}, FAIL, "smallest usable value"),
    "uneven groups": ("configuration", {"num_generations": 6}, {}, FAIL, r"\(16\) must be divisible by .* \(6\)"),
    "groups on ranks": ("shared prompts", {**GPUS, "per_device_train_batch_size": 4}, {}, WARN, "steps: 2` to keep"),
    "in chunks": ("shared prompts", {"prefix_chunk_size": 512}, {}, PASS, "once for its 8 completions, 512 tokens at"),
    "no chunks": ("shared prompts", {"prefix_chunk_size": 9, **EAGER}, {}, FAIL, "`prefix_chunk_size=9` cannot work"),
    "not shared": ("shared prompts", EAGER, {}, PASS, "its prompt again: `attn_implementation` is 'eager'"),
    "tensor parallel": ("batch", {**VLLM, "vllm_tensor_parallel_size": 3}, {}, FAIL, "does not divide 8 ranks"),
    "8 GPUs, 1 process": ("sharding", GPUS, {"accelerate_config": "single_process.yaml", "gpus": 8}, FAIL, "7 of 8"),
    "λ below one channel": ("model and λ", {"sparsity_ratio": 0.03}, {}, FAIL, "selects none of the 32 channels"),
    "an adapter": ("model and λ", LORA, {}, PASS, "1.3M parameters, of which an adapter's 0.0M train"),
    "quantised weights": ("memory", {**LORA, "load_in_4bit": True}, {}, UNKNOWN, "needs the shape, see above"),
    "no model": ("model and λ", {"model_name_or_path": None}, {}, FAIL, "set `model_name_or_path`"),
    "a model on the Hub": ("model and λ", {"model_name_or_path": "a/b"}, {}, UNKNOWN, "Hub cannot be reached"),
    "completions fill the window": ("rope and window", {"max_completion_length": 4096}, {}, FAIL, "no room"),
    "vLLM's window": ("rope and window", {**VLLM, "vllm_max_model_length": 5000}, {}, FAIL, "5000 is more than"),
    "rope for the trainer alone": (
        "rope and window",
        {**VLLM, "model_init_kwargs": json.dumps({"rope_parameters": YARN})},
        {},
        FAIL,
        "sets rope_parameters for the trainer alone",
    ),
    "a server": ("rope and window", {**VLLM, "vllm_mode": "server"}, {}, UNKNOWN, "server was started with"),
    "eager": ("attention", {"attn_implementation": "eager"}, {}, WARN, "attention matrix"),
    "flash": ("attention", {"attn_implementation": "flash_attention_2"}, {}, WARN, "pip install kernels"),
    "no data": ("dataset", {"mixture": None}, {}, FAIL, "Nothing to train on"),
    "no mixture": ("dataset", {"mixture": "/no/such.yaml"}, {}, FAIL, "no config '/no/such.yaml'"),
    "data on the Hub": ("dataset", {"mixture": "mixture.yaml"}, {}, UNKNOWN, "Hub cannot be reached"),
    "too few prompts": ("dataset", {"gradient_accumulation_steps": 1000}, {}, FAIL, "90 prompts and .* takes 2000"),
    "some prompts too long": ("prompt lengths", {"max_completion_length": 3976}, {}, WARN, "longer and are left out"),
    "prompts too long, an error": (
        "prompt lengths",
        {"max_completion_length": 3976, "prompt_length_policy": "error"},
        {},
        FAIL,
        "Longer than the window of 120 tokens",
    ),
    "all prompts too long": ("prompt lengths", {"max_completion_length": 4086}, {}, FAIL, "none is left"),
    "memory": (
        "memory",
        MANY,
        {"gpu_memory": 5, "gpus": 8},
        FAIL,
        r"does not fit. What would: .*size: 1, .*` → 4.\d GiB",
    ),
    "vLLM's share": ("memory", {**VLLM, "vllm_gpu_memory_utilization": 0.025}, {}, FAIL, "vLLM would not start.*0 to"),
    "vLLM's cache": ("memory", {**MANY, **VLLM, **SMALL_SHARE}, {}, WARN, "sequences can have at once, so some wait"),
    "wandb, not logged in": ("tracker", {"report_to": "wandb"}, {}, FAIL, "Run `wandb login`"),
    "a tracker that is missing": ("tracker", {"report_to": "clearml"}, {}, FAIL, "not installed"),
    "trackio space": ("tracker", {"report_to": "trackio", "trackio_space_id": "me/x"}, {}, FAIL, "hf auth login"),
    "push without a login": ("Hub", {"push_to_hub": True}, {}, FAIL, "hf auth login"),
    "resume nothing": ("resume", {"resume_from_checkpoint": "nowhere"}, {}, FAIL, "is no complete checkpoint"),
}


@pytest.mark.parametrize("case", list(CASES))
def test_a_check_fails_on_what_it_is_for(write, case):
    name, changes, arguments, status, text = CASES[case]
    config = "no_such.yaml" if changes is None else write(**changes)
    found = check(config, **arguments)[1]
    [verdict] = [verdict for verdict in found if verdict.check == name]
    assert verdict.status == status, verdict
    assert re.search(text, verdict.text, re.DOTALL), verdict.text


def test_without_deepspeed_everything_else_is_checked(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # as if it were not installed
    verdicts = verdicts_of(write(**GPUS), gpus=8)
    assert verdicts["sharding"] == (FAIL, ANY)
    assert verdicts["memory"][0] == verdicts["batch"][0] == PASS


@pytest.mark.parametrize(
    "launch, text",
    [
        ({"distributed_type": "FSDP", "num_processes": 8}, "FSDP1 flattens parameters"),
        ({"distributed_type": "MEGATRON_LM", "num_processes": 8}, "MEGATRON_LM, where rows .* cannot be masked"),
        ({"distributed_type": "DEEPSPEED", "deepspeed_config": {"deepspeed_config_file": "no.json"}}, "not exist"),
        ({"distributed_type": "DEEPSPEED", "deepspeed_config": {"deepspeed_config_file": "ds.json"}}, "weight decay"),
    ],
    ids=["fsdp1", "megatron", "no_file", "own_optimizer"],
)
def test_a_launch_that_cannot_mask_rows(write, tmp_path, monkeypatch, launch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "launch.yaml").write_text(yaml.safe_dump(launch))
    optimizer = {"type": "AdamW", "params": {"weight_decay": "auto"}}
    (tmp_path / "ds.json").write_text(json.dumps({"optimizer": optimizer, "zero_optimization": {"stage": 3}}))
    verdicts = verdicts_of(write(weight_decay=0.1, **GPUS), accelerate_config="./launch.yaml")
    assert list(verdicts) == ["sharding"] and verdicts["sharding"][0] == FAIL
    assert re.search(text, verdicts["sharding"][1])


@pytest.mark.parametrize(
    "launch, backend",
    [("zero1", "zero1 on 8"), ("zero2", "zero2 on 8"), ("zero3", "zero3 on 8"), ("fsdp2", "fsdp2 on 8")]
    + [("ddp", "ddp on 8"), ("zero3_multinode", "zero3 on 32"), ("single_process", "single on 1")],
)
def test_the_shipped_launches(write, launch, backend):
    assert verdicts_of(write(**GPUS), accelerate_config=f"{launch}.yaml")["sharding"][1].startswith(backend)


def test_versions(write, monkeypatch):
    monkeypatch.setattr(trl_imports, "_is_package_available", lambda name, return_version: (True, "99.0"))
    status, text = verdicts_of(write(**VLLM))["versions"]
    assert status == FAIL and "You have version 99.0" in text
    monkeypatch.undo()
    real = machine.version
    monkeypatch.setattr(machine, "version", lambda name: "1.99.0" if name == "trl" else real(name))
    monkeypatch.setattr(machine, "requires", lambda name: ["trl<1.17,>=1.16", 'vllm>=0.31; extra == "vllm"'])
    status, text = verdicts_of(write())["versions"]
    assert status == FAIL and "trl 1.99.0 is installed, but longact-trl needs trl<1.17,>=1.16" in text


def test_models(write, tmp_path):
    closed = model_with(tmp_path / "closed", "{% if add_generation_prompt %}<think></think>{% endif %}")
    status, text = verdicts_of(write(model_name_or_path=closed))["rewards"]
    assert status == FAIL and "no completion can hold `<think> </think>`" in text
    MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=64).save_pretrained(tmp_path / "mamba")
    status, text = verdicts_of(write(model_name_or_path=str(tmp_path / "mamba")))["model and λ"]
    assert status == FAIL and "has no attention layer" in text
    yarn = model_with(tmp_path / "yarn", rope_parameters=YARN)
    status, text = verdicts_of(write(model_name_or_path=yarn))["rope and window"]
    assert status == WARN and "YaRN reaches 16,384 positions" in text
    extended = model_with(tmp_path / "extended", rope_parameters=YARN, max_position_embeddings=16384)
    assert verdicts_of(write(model_name_or_path=extended))["rope and window"][0] == PASS


def test_gold_answers_and_columns(write, tmp_path):
    prompt = [{"role": "user", "content": "How many?"}]
    rows = [{"prompt": prompt, "answer": ["7"], "answer_kind": "number"} for _ in range(4)]
    rows[2] = {"prompt": prompt, "answer": ["seven or so"], "answer_kind": "number"}
    own = {"mixture": None, "dataset_name": write_jsonl(tmp_path / "rows.jsonl", rows)}
    status, text = verdicts_of(write(**own))["dataset"]
    assert status == FAIL and "1 of 4 rows are bad" in text and "unusable gold answer (rows 2;" in text
    own["dataset_name"] = write_jsonl(tmp_path / "bare.jsonl", [{"prompt": prompt}] * 4)
    status, text = verdicts_of(write(**own))["dataset"]
    assert status == FAIL and "no column 'answer', which the reward function `answer_reward` reads" in text
    (tmp_path / "broken.jsonl").write_text('{"prompt": [')
    status, text = verdicts_of(write(**{**own, "dataset_name": str(tmp_path / "broken.jsonl")}))["dataset"]
    assert status == FAIL and "cannot be read" in text


def test_disk(write, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: DISK_USAGE(GIB, 0, 10**6))
    status, text = verdicts_of(write(save_total_limit=3))["disk"]
    assert status == FAIL and "1.0 MiB free" in text and "save_total_limit" in text
    assert verdicts_of(write(save_strategy="no"))["disk"][0] == FAIL  # the model is saved at the end
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: DISK_USAGE(GIB, 0, 8 * 10**6))
    assert verdicts_of(write(save_strategy="no"))["disk"][0] == PASS


def test_a_machine_that_only_prepares_the_run(write, monkeypatch):
    """Its disk and its logins are not those of the run, which is why they warn and do not fail."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: DISK_USAGE(GIB, 0, 10**6))
    config = write(**GPUS, report_to="wandb", push_to_hub=True)
    for gpu, expected in ((False, WARN), (True, FAIL)):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda gpu=gpu: gpu)
        verdicts = verdicts_of(config)
        assert [verdicts[name][0] for name in ("disk", "tracker", "Hub")] == [expected] * 3
        assert ("cannot train for want of a GPU" in verdicts["disk"][1]) is not gpu


def test_no_key_is_shown(write, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "wandb-secret")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    console = Console(file=io.StringIO(), width=200)
    assert check_run(write(report_to="wandb", push_to_hub=True), console=console) == 0
    shown = console.file.getvalue()
    assert "wandb-secret" not in shown and "hf_secret" not in shown
    assert re.search(r"tracker +│ pass .*\(a key is set", shown)
    assert re.search(r"Hub +│ could not check .* there is a Hub token; offline", shown)


def test_earlier_checkpoints(write, tmp_path):
    (tmp_path / "run" / "checkpoint-7").mkdir(parents=True)
    status, text = verdicts_of(write())["resume"]
    assert status == FAIL and "holds another run's checkpoint-7. Continue it with" in text
    assert f"or write `output_dir='{tmp_path / 'run-2'}'`" in text
    finished = {"global_step": 7, "max_steps": 7}
    (tmp_path / "run" / "checkpoint-7" / "trainer_state.json").write_text(json.dumps(finished))
    status, text = verdicts_of(write())["resume"]
    assert status == FAIL and "has come to its end after 7 steps. For a new run write `output_dir=" in text
    (tmp_path / "run" / "checkpoint-7" / "trainer_state.json").unlink()
    assert verdicts_of(write(resume_from_checkpoint="auto"))["resume"][1].startswith("a new run")  # cut short
    (tmp_path / "run" / "checkpoint-7" / "trainer_state.json").write_text("{}")
    status, text = verdicts_of(write(resume_from_checkpoint="auto"))["resume"]
    assert status == FAIL and "holds a model only" in text
    (tmp_path / "run" / "checkpoint-7" / "rng_state.pth").touch()
    status, text = verdicts_of(write(resume_from_checkpoint="auto"))["resume"]
    assert status == FAIL and "was written by a dense run" in text
    status, text = verdicts_of(write(resume_from_checkpoint="auto", strategy="dense"))["resume"]
    assert status == PASS and text.endswith("checkpoint-7")


def test_the_papers_data_in_small(write, tmp_path):
    good = []
    for line in (FIXTURES / "docqa.jsonl").read_text().splitlines():
        try:
            convert_row(json.loads(line))
            good.append(json.loads(line))
        except (InvalidRow, KeyError, TypeError, AttributeError):
            pass
    sources = [{"loader": "docqa", "source": write_jsonl(tmp_path / "docqa.jsonl", good)}]
    sources += [{"loader": "memagent", "source": str(FIXTURES / "memagent.jsonl"), "max_bad_share": 1.0}]
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump({"seed": 0, "sources": sources}))
    verdicts = verdicts_of(write(mixture=str(tmp_path / "paper.yaml")))
    for name in ("rewards", "dataset", "gold answers", "prompt lengths"):
        assert verdicts[name][0] == PASS, verdicts[name]
