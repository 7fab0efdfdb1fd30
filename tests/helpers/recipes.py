"""What ships in recipes/."""

from longact_trl.settings.recipe_yaml import read_config

from .paths import RECIPES


ALL = sorted(RECIPES.rglob("*.yaml"))


RUNS = [p for p in ALL if "model_name_or_path" in read_config(p)]  # the others are bases and mixtures
