"""The `longact` command. Each function here only reads its arguments; the work is done by the module it imports."""

import typer


app = typer.Typer(
    name="longact",
    help="LongAct for TRL: long-context RL on the rows of W_Q and W_K behind high-magnitude channels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


@app.callback()
def longact() -> None:
    """Without a callback, typer would run an only command without its name."""


@app.command()
def quickstart() -> None:
    """Train the embedded model with LongAct on this CPU, measure it before and after, and draw the run."""
    from .quickstart import main

    main()
