"""Adapters and models that cannot be used: one message with the file and the field."""

import json
import traceback
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import save
from transformers import RecurrentGemmaConfig

from helpers.evaluation import Says, gold, make_config
from helpers.models import make_model
from longact_trl.evaluation.backends import Model
from longact_trl.evaluation.run import evaluate
from longact_trl.models.reading import load_model, load_processing_class, load_tokenizer
from longact_trl.models.weight_files import WeightFiles
from longact_trl.settings.messages import PACKAGE


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048, "rope_theta": 1e4}


@pytest.fixture
def config(tmp_path):
    return partial(make_config, tmp_path)


@pytest.fixture
def adapter(config, tmp_path):
    """Folder of a LoRA adapter, and a run of it."""
    base = config(benchmarks=["tiny_tasks"]).model
    make_model(max_position_embeddings=8192).save_pretrained(base)
    model = get_peft_model(make_model(), LoraConfig(r=16, target_modules=["q_proj"], rank_pattern={"layers.1": 64}))
    model.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    content = json.loads(file.read_text()) | {"base_model_name_or_path": base}
    file.write_text(json.dumps(content))
    return file, content, config(benchmarks=["tiny_tasks"], model=str(tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"peft_type": "IA3"}, "adapter_config.json: peft_type='IA3', but only LORA is evaluated"),
        ({"base_model_name_or_path": None}, "adapter_config.json: base_model_name_or_path=None must name the model"),
        ({"base_model_name_or_path": "/no/such"}, r"beneath .*adapter' \(base_model_name_or_path\): .*'/no/such'"),
        ({"r": None}, "adapter_config.json: r=None and rank_pattern must be ranks from 1 to 512"),
        ({"r": 1024}, "adapter_config.json: r=1024"),
        ({"r": True}, "adapter_config.json: r=True"),
        ({"rank_pattern": [16]}, r"must be ranks from 1 to 512, not \[16\]"),
        ({"rank_pattern": {"a": "16"}}, r"must be ranks from 1 to 512, not \{'a': '16'\}"),
    ],
)
def test_an_adapter_that_cannot_be_evaluated(adapter, changes, named):
    file, content, config = adapter
    assert Model(config).lora_rank == 64  # the highest of its layers
    file.write_text(json.dumps(content | changes))
    with pytest.raises(ValueError, match=named):
        evaluate(config)


@pytest.mark.parametrize(
    ("name", "value"), [("rank_pattern", {"a": 8}), ("alpha_pattern", {"a": 8}), ("use_dora", True), ("bias", "all")]
)
def test_what_vllm_would_read_otherwise_is_for_transformers(adapter, name, value):
    """It scales each layer by the adapter's one alpha / r, also one that has its own in a pattern."""
    file, content, config = adapter
    file.write_text(json.dumps(content | {"rank_pattern": {}}))
    config.backend = "vllm"
    assert Model(config).backend == "vllm"
    file.write_text(json.dumps(content | {"rank_pattern": {}, name: value}))
    with pytest.raises(
        ValueError, match=f"adapter_config.json: vLLM does not read its {name}: write `--backend trans"
    ):
        Model(config)
    config.backend = "transformers"
    assert Model(config).backend == "transformers"


def test_an_adapter_whose_file_is_none(adapter):
    file, content, config = adapter
    for text, named in ((json.dumps(content)[:40], "cannot be read as JSON .*: was it cut off"), ("[]", "is no JSON")):
        file.write_text(text)
        with pytest.raises(ValueError, match=f"adapter_config.json {named}"):
            evaluate(config)
    file.unlink()
    file.mkdir()
    with pytest.raises(ValueError, match="adapter_config.json cannot be read as JSON"):
        evaluate(config)


def test_a_real_adapter_that_is_no_lora(config, tmp_path):
    ia3 = IA3Config(target_modules=["q_proj"], feedforward_modules=[])
    get_peft_model(make_model(), ia3).save_pretrained(tmp_path / "ia3")
    with pytest.raises(ValueError, match="peft_type='IA3'"):
        evaluate(config(benchmarks=["tiny_tasks"], model=str(tmp_path / "ia3")))


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("config.json", '{"model_type": "qw', "model/config.json cannot be read as JSON .*: was it cut off"),
        ("config.json", None, "model' cannot be used: .*Should have a `model_type` key in its config.json"),
        ("config.json", "[]", "model/config.json is no JSON object"),
        ("config.json", {"model_type": "nope"}, "model' cannot be used: .*model type `nope`"),
        ("config.json", {"max_position_embeddings": None}, "model' cannot be used: .*max_position_embeddings"),
        ("config.json", {"max_position_embeddings": "8192"}, "model' cannot be used: .*max_position_embeddings"),
        ("config.json", {"max_position_embeddings": -1}, "model' names no window. Give `--max_model_length`"),
        ("config.json", {"rope_parameters": YARN | {"factor": "4.0"}}, "model': factor='4.0' .* must be a number"),
        ("config.json", {"rope_scaling": YARN | {"factor": None}}, "model': factor=None .* must be a number"),
        ("config.json", {"rope_parameters": "yarn"}, "model' cannot be used: .*rope_parameters"),
        ("tokenizer.json", '{"version"', "model/tokenizer.json cannot be read as JSON .*: was it cut off"),
        ("tokenizer_config.json", "[]", "model/tokenizer_config.json is no JSON object"),
        ("tokenizer.json", {"model": "none"}, "The tokenizer of '.*model' cannot be loaded"),
    ],
)
def test_a_model_folder_that_was_cut_off(config, file, content, named):
    config = config(benchmarks=["tiny_tasks"])
    path = Path(config.model, file)
    if isinstance(content, dict):
        changed = json.loads(path.read_text())
        changed.pop("rope_parameters", None)
        content = json.dumps(changed | content)
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match=named) as error:
        evaluate(config)
    if file.startswith("tokenizer"):
        for read in (load_tokenizer, load_processing_class):
            with pytest.raises(ValueError, match=named):
                read(config.model)
    *_, innermost = traceback.extract_tb(error.value.__traceback__)
    assert Path(innermost.filename).is_relative_to(PACKAGE)  # one message, and no traceback


@pytest.mark.parametrize(
    ("benchmark", "template", "named"),
    [
        ("longbench_v2", "{% if %}", "TemplateSyntaxError"),
        ("ruler", "{% if %}", "TemplateSyntaxError"),
        ("infinitebench", "{% if %}", "TemplateSyntaxError"),
        ("infinitebench", "{{ raise_exception('only tools') }}", "TemplateError: only tools"),
        ("longbench_v2", "{{ messages[3]['content'] }}", "UndefinedError"),
        ("longbench_v2", "{{ 1 / 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_chat_template_that_cannot_be_used(config, benchmark, template, named):
    config = config(benchmarks=[benchmark], tasks=None if benchmark == "longbench_v2" else ["vt", "passkey"])
    Path(config.model, "chat_template.jinja").write_text(template)
    with pytest.raises(
        ValueError, match=f"The chat template of '.*model' cannot be used for messages of user: {named}"
    ):
        evaluate(config)


def weights_of(config, name="model.safetensors") -> Path:
    make_model(max_position_embeddings=8192).save_pretrained(config.model)
    return Path(config.model, name)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("model.safetensors", 0.5, "model.safetensors cannot be read .*: was it cut off"),
        ("model.safetensors", b"", "model.safetensors cannot be read"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1", "model.safetensors cannot be read"),
        ("generation_config.json", b'{"eos_tok', "generation_config.json cannot be read as JSON"),
        ("generation_config.json", b"[]", "generation_config.json is no JSON object"),
        ("model.safetensors.index.json", b'{"weight_', "index.json is no index of weights .JSONDecodeError"),
        ("model.safetensors.index.json", b'{"metadata": {}}', "index.json is no index of weights .KeyError"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "b.safetensors"}}', "has no b.safetensors, which its"),
    ],
)
def test_weights_that_are_not_whole(config, name, content, named):
    config = config(benchmarks=["tiny_tasks"])
    path = weights_of(config, name)
    if name.endswith("index.json"):
        path.with_name("model.safetensors").rename(path.with_name("model-00001-of-00002.safetensors"))
    if content == 0.5:
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=named):
        Model(config).load(config)
    for read in (load_model, WeightFiles) if "safetensors" in name else ():
        with pytest.raises(ValueError, match=named):
            read(config.model)


def test_an_adapter_without_weights(adapter):
    *_, config = adapter
    weights = Path(config.model, "adapter_model.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="adapter_model.safetensors cannot be read"):
        Model(config).load(config)
    weights.unlink()
    make_model(max_position_embeddings=8192).save_pretrained(
        config.model
    )  # merged, and the adapter's file still there
    with pytest.raises(ValueError, match="adapter' holds no weights .* of an adapter"):
        Model(config).load(config)


def test_what_a_trainer_writes_beside_weights_is_none(config):
    config = config(benchmarks=["tiny_tasks"])
    Path(config.model, "tokenizer").mkdir()
    before = Model(config)
    for name in ("training_args.bin", "optimizer.bin", "trainer_state.json"):
        Path(config.model, name).write_bytes(b"x")
    after = Model(config)
    assert (after.files, after.weight_files) == (before.files, before.weight_files)
    with pytest.raises(ValueError, match="model' holds no weights"):
        after.load(config)
    Path(config.model, "consolidated.safetensors").write_bytes(save({"a": torch.ones(1)}))
    with pytest.raises(ValueError, match="Cannot read '.*model': .*no file named model.safetensors"):
        after.load(config)


def test_a_model_without_tokenizer_weights_or_window(config, tmp_path):
    run = config(benchmarks=["tiny_tasks"])
    with pytest.raises(ValueError, match="model' holds no weights"):
        evaluate(run)
    for file in Path(run.model).glob("tokenizer*"):
        file.unlink()
    for read in (lambda model: evaluate(run), load_tokenizer, load_processing_class):
        with pytest.raises(ValueError, match="model' has no tokenizer: copy tokenizer.json"):
            read(run.model)
    settings = {"benchmarks": ["tiny_tasks"], "output_dir": str(tmp_path / "other")}
    run = config(**settings)
    RecurrentGemmaConfig().save_pretrained(run.model)
    with pytest.raises(ValueError, match="config.json of '.*model' names no window. Give `--max_model_length`"):
        evaluate(run)
    run = config(**settings, max_model_length=512)
    RecurrentGemmaConfig().save_pretrained(run.model)
    assert evaluate(run, Says(gold))["max_model_length"] == 512
