"""Whatever a configuration says, it is taken or refused with a message: no other exception, no hang."""

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trl import ModelConfig

from helpers.paths import RECIPES
from helpers.trainers import make_args
from longact_trl import LongActConfig
from longact_trl.data.mixture import LOADERS, load_mixture
from longact_trl.evaluation.config import EvaluationConfig
from longact_trl.settings.recipe_yaml import parse_recipe, read_config
from longact_trl.training.recipe_parts import RecipeArguments


EVERYTHING = list(HealthCheck)
FUZZ = settings(max_examples=250, deadline=None, database=None, derandomize=True, suppress_health_check=EVERYTHING)
numbers = st.sampled_from([0, -1, 1, 3, 10**30, 0.5, -0.1, 1e-300, float("nan"), float("inf"), -float("inf")])
leaves = st.none() | st.booleans() | numbers | st.text(max_size=6) | st.sampled_from(["1e-6", "auto", "none", "{}"])
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=2)
    ),
    max_leaves=5,
)
RECIPE = (RecipeArguments, LongActConfig, ModelConfig)


def refused_or_taken(read) -> None:
    try:
        read()
    except ValueError as error:
        assert len(str(error)) > 20


def keys_of(*dataclasses) -> st.SearchStrategy:
    return st.sampled_from(sorted(name for cls in dataclasses for name in cls.__dataclass_fields__))


@pytest.mark.parametrize(
    "dataclasses, fixed",
    [(RECIPE, {"output_dir": "o", "use_cpu": True, "bf16": False}), ((EvaluationConfig,), {"model": "m"})],
    ids=["recipe", "evaluation"],
)
def test_a_configuration(tmp_path, capsys, dataclasses, fixed):
    path = tmp_path / "config.yaml"
    own = keys_of(LongActConfig if LongActConfig in dataclasses else EvaluationConfig) | keys_of(*dataclasses)

    @FUZZ
    @given(st.dictionaries(own | st.just("env") | st.just("base"), values, min_size=1, max_size=2))
    def check(config):
        config.pop("env", None) if isinstance(config.get("env"), dict) else None  # this process needs its own
        path.write_text(yaml.safe_dump({**fixed, **config}))
        try:
            refused_or_taken(lambda: parse_recipe(dataclasses, ["--config", str(path)], RECIPES))
        except SystemExit:  # argparse's: names the argument and the value
            assert "argument --" in capsys.readouterr().err

    check()


@FUZZ
@given(st.dictionaries(keys_of(LongActConfig).filter(LongActConfig.__annotations__.get), values, max_size=2))
def test_the_trainers_own_fields(config):
    refused_or_taken(lambda: make_args("o", **config))


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "a: 1\n\tb: 2", "&a [*a]", "!!python/object:os.system x", "\x00"])
def test_what_is_no_mapping(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="config.yaml"):
        read_config(path)
    path.write_bytes(b"\xff\xfe" + text.encode())
    with pytest.raises(ValueError, match="config.yaml is no YAML in UTF-8"):
        read_config(path)


def test_a_file_that_is_its_own_base(tmp_path):
    for name, base in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"base: {base}.yaml")
    with pytest.raises(ValueError, match="a.yaml is its own `base`"):
        read_config(tmp_path / "a.yaml")


def test_a_value_of_another_type_is_named(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("output_dir: o\nsparsity_ratio: [0.3]\n")
    with pytest.raises(ValueError, match=r"config.yaml: `sparsity_ratio` cannot be \[0.3\]: it must be float"):
        parse_recipe(RECIPE, ["--config", str(path)], RECIPES)
    with pytest.raises(ValueError, match="`sparsity_ratio` must be float, got '0.3'"):
        make_args("o", sparsity_ratio="0.3")


GENERATED = {"loader": "tiny_tasks", "num_prompts": 2}
options = st.sampled_from(["num_prompts", "seed", "split", "context_words", "num_needles", "num_rows", "x"])
sources = st.builds(lambda changes: {**GENERATED, **changes}, st.dictionaries(options, values, max_size=2))
sources |= st.fixed_dictionaries({"loader": st.sampled_from(sorted(LOADERS)) | values, "source": st.just("/no/such")})


@FUZZ
@given(
    st.fixed_dictionaries({"seed": values | st.just(0), "sources": st.lists(sources | values, max_size=2) | values})
)
def test_a_mixture(mixture):
    refused_or_taken(lambda: load_mixture(mixture))


def test_a_mixture_that_is_no_yaml(tmp_path):
    (tmp_path / "mixture.yaml").write_bytes(b"sources: [\xff")
    with pytest.raises(ValueError, match="mixture.yaml"):
        load_mixture(tmp_path / "mixture.yaml")
