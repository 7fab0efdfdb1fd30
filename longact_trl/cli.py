"""The `longact` command. Each function here only reads its arguments; the work is done by the module it imports."""

from typing import Annotated

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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def check(
    context: typer.Context,
    config: Annotated[str, typer.Option(help="A recipe's YAML: a bare name beside the recipes, or a path.")],
    gpus: Annotated[int | None, typer.Option(help="GPUs of all nodes; default: the accelerate config's.")] = None,
    gpu_memory: Annotated[float, typer.Option(help="GiB of one GPU.")] = 80.0,
    accelerate_config: Annotated[
        str | None, typer.Option(help="Accelerate config; default zero3.yaml, or cpu.yaml for a run on a CPU.")
    ] = None,
) -> None:
    """Say what would go wrong with a run and what memory it takes: no GPU, no weights. Any field can be overridden."""
    from .check.report import main

    raise typer.Exit(main(config, context.args, gpus, gpu_memory, accelerate_config))
