"""What a recipe's YAML or a mixture's says wrong is said before a library is loaded; what ships says nothing wrong."""

import pytest

from helpers.paths import RECIPES
from helpers.recipes import RUNS
from longact_trl.settings.paths import MODEL
from longact_trl.settings.recipe_yaml import read_config
from longact_trl.training.command_line import COLD_START, GRPO, check_command_line, recipe_of


QUICK = ("--config", "quickstart.yaml", "--model_name_or_path", str(MODEL))


@pytest.fixture(autouse=True)
def no_run_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


YAML = {
    "lerning_rate: 1.0e-6": "unknown key `lerning_rate`. Did you mean `learning_rate`",
    "learning_rate: [1]": "`learning_rate` cannot be \\[1\\]: it must be float",
    "max_steps: ten": "`--max_steps`: invalid int value: 'ten'",
    "lr_scheduler_type: cosin": "`lr_scheduler_type` cannot be 'cosin'. Did you mean `cosine`",
    "max_steps: -3": "`max_steps` must be a number of steps",
    "report_to: [wandb, tensorbord]": "`report_to` cannot be 'tensorbord'.*Did you mean 'tensorboard'",
    "deepspeed: zero4.json": "`deepspeed`: there is no file 'zero4.json'",
    "model_init_kwargs: no": "`model_init_kwargs` cannot be False: it must be",
    "model_init_kwargs: device_map=auto": "`model_init_kwargs` cannot be 'device_map=auto': write a mapping in YAML",
    "model_init_kwargs: {atn_implementation: sdpa}": "unknown key `atn_implementation`. Did you mean `attn_impl",
    "sparsity_ratio: a third": "invalid float value: 'a third'",
    "loss_type: dapoo": "`loss_type` 'dapoo'.*Did you mean 'dapo'",
    "dtype: bf16": "`dtype` cannot be 'bf16'. Did you mean `bfloat16`",
    "ddp_backend: ncll": "`ddp_backend` cannot be 'ncll'. Did you mean `nccl`",
    "strategy: max": "Unknown `strategy` 'max'",
    "sparsity_ratio: 3": "`sparsity_ratio` must be in",
    "max_steps: 5\nmax_steps: 6": "`max_steps` stands there twice",
    "- a": "must hold `key: value` lines",
    "base: nope.yaml": "no config .*nope.yaml",
}


@pytest.mark.parametrize("recipe", [GRPO, COLD_START], ids=["grpo", "cold start"])
@pytest.mark.parametrize("line", YAML)
def test_what_a_file_says_is_read_as_early(tmp_path, recipe, line):
    own = line.partition(":")[0] in ("strategy", "sparsity_ratio", "loss_type")
    (tmp_path / "run.yaml").write_text(
        f"model_name_or_path: m/m\ndataset_name: d/d\n{line}\n" if ":" in line else line
    )
    message = "unknown key|`loss_type` cannot be 'dapoo'" if own and recipe is COLD_START else YAML[line]
    with pytest.raises(ValueError, match=message):
        check_command_line(recipe, ["--config", str(tmp_path / "run.yaml")], RECIPES)


def test_a_file_that_is_here_and_not_beside_the_recipe(tmp_path):
    (tmp_path / "mine.yaml").write_text("model_name_or_path: m/m\ndataset_name: d/d\n")
    with pytest.raises(ValueError, match="no config .*write `./mine.yaml` for the file that is here"):
        check_command_line(GRPO, ["--config", "mine.yaml"], RECIPES)


MIXTURES = {
    "seed: 1\nsources: [{loader: docqs}]": "loader must be one of .*'docqs'. Did you mean docqa",
    "seed: 1\nsources: [{loader: docqa, num_rows: many}]": "num_rows of source 'docqa' must be a whole number",
    "seed: 1\nsources: [{loader: docqa, num_row: 5}]": "no option num_row: use .* Did you mean num_rows",
    "seed: 1\nsources: [{loader: docqa, max_bad_share: few}]": "max_bad_share of source 'docqa' must be float",
    "seed: 1\nsources: [{loader: docqa, max_bad_share: 5}]": "must be a share from 0 to 1",
    "seed: 1\nsources: [{loader: docqa, split: tset}]": "must be one of train, test, .*Did you mean test",
    "seed: 1\nsources: [{loader: memagent, split: test}]": "must be one of train, validation, but",
    "seed: 1\nsources: [{loader: docqa, source: nope.parquet}]": "`source of docqa`: there is no 'nope.parquet'",
    "seed: 1\nsources: [{loader: memagent, data_files: [a, 3]}]": "must be str | list.str. | None, but is .'a', 3",
    "seed: 1\nsources: [{loader: synthetic, tokens: 16k}]": "tokens of synthetic contexts must be a whole number",
    "seed: 1\nsources: [{loader: synthetic, tokens: 4096, task: [needle]}]": "no option task: .* Did you mean tasks",
    "seed: 1\nsources: [{loader: synthetic, tokens: 4096, tasks: [neadle]}]": "must be a list of some of needle",
    "seed: 1\nsources: [{loader: tiny_tasks, num_prompts: -5}]": "num_prompts of source 'tiny_tasks' must be a whole",
    "seed: 1\nsources: [{loader: tiny_tasks, context_words: [96, 64]}]": "must be the fewest and the most",
    "seed: 1\nsources: [docqa]": "loader must be one of",
    "seed: one\nsources: [{loader: docqa}]": "seed must be an integer",
    "sources: [{loader: docqa}]": "must have `seed` and a list of `sources`",
}


@pytest.mark.parametrize("content", MIXTURES)
def test_what_a_mixture_says_is_read_as_early(tmp_path, content):
    (tmp_path / "mixture.yaml").write_text(content)
    with pytest.raises(ValueError, match=MIXTURES[content]):
        check_command_line(GRPO, [*QUICK, "--mixture", str(tmp_path / "mixture.yaml")], RECIPES)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_what_ships_is_not_refused(path, clone, monkeypatch):
    recipe = recipe_of(read_config(path))
    monkeypatch.setenv("WORLD_SIZE", "1" if "quickstart" in path.stem else "8")
    assert (recipe is COLD_START) == path.stem.startswith("sft_")
    there = ["--model_name_or_path", str(MODEL)] if recipe is GRPO else []  # some start from a cold start's
    there += ["--use_cpu", "true"]  # the GPUs are elsewhere
    check_command_line(recipe, ["--config", str(path), *there], RECIPES)
