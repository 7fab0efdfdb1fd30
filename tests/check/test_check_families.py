"""`longact check` says of a user's model what docs/models.md says of its family, and reads no weights for it."""

import csv
import json
import re

import pytest
from transformers import Florence2Config, Gemma3Config, LlamaConfig, OPTConfig

from helpers.families import tiny_config
from helpers.models import make_tokenizer
from helpers.paths import ROOT
from longact_trl.check import settings
from longact_trl.check.memory.shape import shape_of
from longact_trl.check.subject import read_subject
from longact_trl.check.verdict import FAIL, UNKNOWN, WARN, verdict_of


pytestmark = pytest.mark.usefixtures("offline_machine")
WITHIN = "shared within micro-batches"


@pytest.fixture(scope="module")
def page() -> dict[str, dict[str, str]]:
    with (ROOT / "docs" / "models.tsv").open() as file:
        return {row["family"]: row for row in csv.DictReader(file, delimiter="\t")}


@pytest.fixture
def said_of(write, tmp_path):
    """What two checks say of a model of which there is only the configuration."""

    def said(config) -> tuple:
        config.save_pretrained(tmp_path / "model")
        make_tokenizer().save_pretrained(tmp_path / "model")
        changes = {"per_device_train_batch_size": 4, "num_generations": 2}
        subject = read_subject(write(model_name_or_path=str(tmp_path / "model"), **changes))
        checks = settings.model, settings.shared_prompts
        return tuple(verdict_of(check.__name__, lambda check=check: check(subject)) for check in checks)

    return said


@pytest.mark.parametrize(
    "family",
    [
        "qwen3",
        "qwen3_5",  # a composite checkpoint, gates, recurrent layers
        "qwen3_next",
        "qwen3_moe",
        "gpt_oss",
        "gemma3",
        "gemma4",
        "deepseek_v3",
        "mistral3",
        "gpt_neox",  # fused
        "opt",  # without gated MLPs
        "deepseek_v4",  # K's rows make V, too
        "llama4_text",  # TRL cannot train it
        "minimax_m3_vl",  # its experts' scores do not reach TRL's loss
        "jetmoe",
        "mamba2",
    ],
)
def test_what_is_said_of_a_family(family, page, said_of):
    config, row = tiny_config(family), page[family]
    model, shared = said_of(config)
    if refusal := row["step"].partition("ValueError: ")[2]:
        assert (model.status, model.text) == (FAIL, refusal)
        return
    assert row["projections"] + ", in " in model.text, model
    is_shared = shared.text.startswith("a prompt is forwarded once")
    assert is_shared == (row[WITHIN] == "ok"), shared


@pytest.mark.parametrize(
    "config, message",
    [
        (Florence2Config(), "Florence2ForConditionalGeneration reads the prompt in an encoder"),
        (LlamaConfig(hidden_act="swoosh"), "LlamaForCausalLM cannot be built from this configuration: .*swoosh"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_trained_is_no_crash(said_of, config, message):
    model, _ = said_of(config)
    assert model.status == FAIL and re.search(message, model.text), model


def test_layers_without_attention_are_counted(said_of):
    assert "Q in q_proj, K in k_proj, in 1 of 4 layers" in said_of(tiny_config("qwen3_5"))[0].text


@pytest.mark.parametrize(
    "config",
    [OPTConfig(num_hidden_layers=1), tiny_config("gemma3n_text@no_shared_kv")],
    ids=lambda config: type(config).__name__,
)
def test_a_model_whose_mlps_have_no_one_width_has_no_formula(config):
    with pytest.raises(ValueError, match="is no stack of equal layers, for which alone there is a formula"):
        shape_of(config)


def test_positions_of_each_kind_of_layers(write, tmp_path):
    yarn = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 8.0, "original_max_position_embeddings": 32768}
    rope = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": yarn}
    config = Gemma3Config()
    config.text_config.rope_parameters = rope
    config.save_pretrained(tmp_path)
    subject = read_subject(write(model_name_or_path=str(tmp_path)))
    verdict = verdict_of("rope", lambda: settings.rope(subject))
    assert verdict.status == WARN and "YaRN reaches 262,144 positions" in verdict.text, verdict
    config.text_config.max_position_embeddings = 262144
    config.save_pretrained(tmp_path)
    subject = read_subject(write(model_name_or_path=str(tmp_path)))
    assert settings.rope(subject).startswith("default and yarn, prompts of up to 262,104 tokens")
    yarn["factor"] = "8"
    with pytest.raises(ValueError, match="factor='8' of its positions must be a number"):
        config.text_config.rope_parameters = rope
        config.save_pretrained(tmp_path)
        _ = read_subject(write(model_name_or_path=str(tmp_path))).model_config


def test_custom_code_is_checked_once_it_is_loaded(write, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "configuration_own.py").write_text(
        "from transformers import PretrainedConfig\n\nclass OwnConfig(PretrainedConfig):\n    model_type = 'own'\n"
    )
    auto_map = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    config = {"model_type": "own", "auto_map": auto_map, "max_position_embeddings": 256}
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    subject = read_subject(write(model_name_or_path=str(tmp_path / "own"), trust_remote_code=True))
    verdict = verdict_of("model", lambda: settings.model(subject))
    assert verdict.status == UNKNOWN and "OwnConfig is custom code" in verdict.text, verdict
