import dataclasses
import inspect
import re

import pytest
from trl import GRPOConfig, TrlParser

from longact_trl import LongActConfig
from longact_trl.method.masks import STRATEGIES
from longact_trl.settings.choices import ROW_SPARSE_CHOICES, SALIENCY_SOURCES, UPDATE_RULES


OURS = LongActConfig.__annotations__
FIELDS = dataclasses.fields(LongActConfig)
DOCUMENTED = re.compile(
    r"^    (\w+) \(`(.+)`, \*optional\*, defaults to `(.+)`\):\n((?:        .+\n?)+)", re.MULTILINE
)


def documented() -> dict[str, tuple[str, str, str]]:
    doc = inspect.cleandoc(LongActConfig.__doc__)
    return {name: (kind, default, text) for name, kind, default, text in DOCUMENTED.findall(doc)}


def normalise(text: str) -> str:
    return " ".join(text.replace("'", '"').split())


@pytest.mark.parametrize("field", [f for f in FIELDS if f.name in OURS], ids=lambda f: f.name)
def test_docstring_and_help_are_the_same_words(field):
    if field.name in documented():
        kind, default, text = documented()[field.name]
        assert normalise(text) == normalise(field.metadata["help"])
        assert default.strip('"') == str(field.default)
        hint = OURS[field.name]  # not `field.type`, which transformers' parser overwrites
        assert kind == getattr(hint, "__name__", str(hint))
    else:  # fields of GRPOConfig with another default, named in the docstring's text
        assert field.name in {f.name for f in dataclasses.fields(GRPOConfig)}
        assert f"`{field.name}` is" in " ".join(LongActConfig.__doc__.split())
        assert str(field.default) in LongActConfig.__doc__
        assert field.metadata["help"]


def test_every_documented_field_exists():
    assert documented() and set(documented()) <= set(OURS)


def test_defaults_are_the_papers(tmp_path):
    args = LongActConfig(str(tmp_path), use_cpu=True, bf16=False)
    assert args.sparsity_ratio == 0.3
    assert (args.strategy, args.update_rule, args.saliency_source) == ("massive", "masked_gradient", "current_batch")
    assert (args.loss_type, args.epsilon, args.epsilon_high, args.beta) == ("dapo", 0.2, 0.28, 0)
    assert args.vllm_importance_sampling_mode == "token_truncate"


def test_only_these_defaults_of_grpo_differ():
    ours = {f.name: (f.default, f.default_factory) for f in FIELDS}
    theirs = {f.name: (f.default, f.default_factory) for f in dataclasses.fields(GRPOConfig)}
    changed = {name for name, default in theirs.items() if ours[name] != default}
    assert changed == {"epsilon_high", "vllm_importance_sampling_mode"}


def test_yaml(tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"output_dir: {tmp_path}/run\nuse_cpu: true\nbf16: false\nsparsity_ratio: 0.29\nstrategy: random\n"
        "update_rule: frozen_rows\nsaliency_source: previous_step\nheatmap_steps: 0\nepsilon_high: null\n"
    )
    parser = TrlParser(LongActConfig)
    command = ["--config", str(tmp_path / "run.yaml")]
    [args] = parser.parse_args_and_config(command)
    assert (args.sparsity_ratio, args.strategy, args.update_rule) == (0.29, "random", "frozen_rows")
    assert (args.saliency_source, args.heatmap_steps, args.epsilon_high) == ("previous_step", 0, None)
    [args] = parser.parse_args_and_config([*command, "--sparsity_ratio", "0.5", "--strategy", "min"])
    assert (args.sparsity_ratio, args.strategy) == (0.5, "min")


def test_the_help_can_be_printed(capsys):
    with pytest.raises(SystemExit):
        TrlParser(LongActConfig).parse_args_and_config(["--help"])
    assert "--sparsity_ratio" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, choices",
    [
        ("strategy", STRATEGIES),
        ("update_rule", UPDATE_RULES),
        ("saliency_source", SALIENCY_SOURCES),
        ("row_sparse_gradients", ROW_SPARSE_CHOICES),
    ],
)
def test_every_choice_is_documented_and_accepted(tmp_path, name, choices):
    _, _, text = documented()[name]
    for choice in choices:
        assert f'`"{choice}"`' in text
        assert getattr(LongActConfig(str(tmp_path), use_cpu=True, bf16=False, **{name: choice}), name) == choice
