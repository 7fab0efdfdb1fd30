"""Command lines of recipes: TRL's parser, which names the one option that is wrong."""

import re
from collections.abc import Sequence
from typing import NoReturn

from trl import TrlParser

from .messages import did_you_mean


class Parser(TrlParser):
    """
    [`~trl.TrlParser`] that raises a `ValueError` where argparse would print all of 200 options and exit.

    Args:
        dataclass_types (`Sequence[type]`):
            Dataclasses whose fields are the options.
    """

    def __init__(self, dataclass_types: Sequence[type]):
        super().__init__(list(dataclass_types), allow_abbrev=False)

    def check_names(self, argv: Sequence[str], other_options: Sequence[str] = ()) -> None:
        """
        Check that every option is one, and nothing stands between them.

        Args:
            argv (`Sequence[str]`):
                Command line without `--config`.
            other_options (`Sequence[str]`, *optional*):
                Options that somebody else reads, for the hint at a typo.

        Raises:
            `ValueError`: Names the first that is not, and the nearest that is.
        """
        _, unknown = self.parse_known_args(list(argv))
        options = [part.partition("=")[0] for part in unknown if part.startswith("--")]
        fields = {name for cls in self.dataclass_types for name in cls.__dataclass_fields__}
        known = {*fields, "config", *other_options}
        if options:
            name = options[0][2:].replace("-", "_")
            if name == "config":
                raise ValueError("`--config` is given twice. One file can name others as its `base`.")
            hint = did_you_mean(name, known, "Did you mean `--{}`?", "See `--help` for all there are.")
            raise ValueError(f"There is no option `{options[0]}`. {hint}")
        if unknown and unknown[0].endswith((".yaml", ".yml")):
            raise ValueError(f"{unknown[0]!r} stands alone. Write `--config {unknown[0]}`.")
        if unknown:
            dashed = unknown[0].partition("=")[0].strip("-–—").replace("-", "_") if unknown[0][0] in "-–—" else ""
            hint = did_you_mean(dashed, known, " Did you mean `--{}`?")
            raise ValueError(f"{unknown[0]!r} belongs to no option: write `--name value` for each.{hint}")

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found, in the words of this package."""
        found = re.fullmatch(r"argument (--\w+)[^:]*: (.*)", message, re.DOTALL)
        if not found:
            raise ValueError(f"{message[0].upper()}{message[1:]}.")
        option, reason = found.groups()
        choice = re.fullmatch(r"invalid choice: '(.*)' \(choose from (.*)\)", reason, re.DOTALL)
        if choice:
            names = [name.strip("'") for name in choice[2].split(", ")]
            hint = did_you_mean(choice[1], names, "Did you mean {}?", f"Write one of {', '.join(names)}.")
            raise ValueError(f"`{option}` cannot be {choice[1]!r}. {hint}")
        raise ValueError(f"`{option}`: {reason.rstrip('.')}.")
