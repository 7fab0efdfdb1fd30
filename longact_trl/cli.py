"""The `longact` command. Each function here only reads its arguments; the work is done by the module it imports."""

from pathlib import Path
from typing import Annotated

import typer

from ._version import __version__
from .analysis import options
from .method.sparsity import check_sparsity_ratio
from .settings.gpus import gpu_named
from .settings.messages import usage_errors
from .settings.paths import check_folders, check_here, output_folder
from .settings.quiet import quiet


KINDS, NUM_PROMPTS = "q,k,v", 8  # defaults of `longact inspect`

app = typer.Typer(
    name="longact",
    help="LongAct for TRL: long-context RL on the rows of W_Q and W_K behind high-magnitude channels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


def show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"longact-trl {__version__}")
        raise typer.Exit


@app.callback()
def longact(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What holds for each command: nothing is shown that nobody can act on."""
    quiet()


@app.command()
def quickstart() -> None:
    """Train the embedded model with LongAct on this CPU, measure it before and after, and draw the run."""
    from .quickstart import quick_start

    quick_start()


GpuName = Annotated[str, typer.Option("--gpu", help="A100, H100, H800 or H200: whose peaks the hours assume.")]
Price = Annotated[float | None, typer.Option(help="Of a GPU for an hour: shows the price.", min=0, show_default=False)]


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def check(
    context: typer.Context,
    config: Annotated[str, typer.Option(help="A recipe's YAML: a bare name beside the recipes, or a path.")],
    gpus: Annotated[
        int | None, typer.Option(help="GPUs of all nodes; default: the accelerate config's.", min=1)
    ] = None,
    gpu_memory: Annotated[float | None, typer.Option(help="GiB of one GPU; default: what --gpu has.", min=1)] = None,
    accelerate_config: Annotated[
        str | None, typer.Option(help="Accelerate config; default zero3.yaml, or cpu.yaml for a run on a CPU.")
    ] = None,
    gpu: GpuName = "H100",
    price_per_gpu_hour: Price = None,
) -> None:
    """Say what would go wrong with a run, its memory and hours: no GPU, no weights. Any field can be overridden."""
    from .training.command_line import check_settings

    with usage_errors(exit_code=1):  # a check that failed
        own_options = [name for name in context.params if name != "context"]
        on = gpu_named(gpu)
        check_settings(config, context.args, accelerate_config, own_options)

    from .check.command import check_run

    memory = on.memory if gpu_memory is None else gpu_memory
    code = check_run(config, context.args, gpus, memory, accelerate_config, gpu=on, price=price_per_gpu_hour)
    raise typer.Exit(code)


Model = Annotated[str, typer.Argument(help="Folder or Hub id.", show_default=False)]
Lambda = Annotated[float, typer.Option("--sparsity-ratio", help="λ, share of each head's channels that is selected.")]


@app.command()
def inspect(
    model: Model,
    text: Annotated[list[Path] | None, typer.Option(help="UTF-8 file to read; may be repeated.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="Prompts of a benchmark instead, e.g. ruler/cwe.")] = None,
    length: Annotated[str | None, typer.Option(help="Tokens of each text, e.g. 4k.")] = None,
    layers: Annotated[str | None, typer.Option(help="E.g. 0,5,10-12. Default: all.")] = None,
    projections: Annotated[str, typer.Option(help="Some of q,k,v.")] = KINDS,
    after_norm: Annotated[bool, typer.Option("--after-norm", help="Look behind q_norm and k_norm.")] = False,
    after_rope: Annotated[bool, typer.Option("--after-rope", help="Look behind the rotation.")] = False,
    sparsity_ratio: Lambda = 0.3,
    layout: Annotated[
        str, typer.Option(help="ours, or paper: also Fig. 1 and 3-5 as the paper draws them, heads across.")
    ] = "ours",
    gradients: Annotated[
        bool,
        typer.Option("--gradients", help="Instead: the policy gradient of W_Q and W_K on RL batches, by rows."),
    ] = False,
    config: Annotated[
        str | None, typer.Option(help="With --gradients: a recipe's YAML with prompts and rewards; else synthetic.")
    ] = None,
    num_prompts: Annotated[int, typer.Option(help="With --gradients: prompts of each of four lengths.")] = NUM_PROMPTS,
    output: Annotated[Path | None, typer.Option(help="Default: runs/inspect/<model>.", show_default=False)] = None,
) -> None:
    """Show the magnitudes of Q, K and V (Eq. 2): heatmaps, concentration, stability, and a page to browse them."""
    site = "rope" if after_rope else "norm" if after_norm else "projection"
    with usage_errors(), output_folder(output, "inspect", model) as folder:
        options.refuse_both({"--after-norm": after_norm, "--after-rope": after_rope})
        options.refuse_both({"--text": text, "--benchmark": benchmark})
        options.check_options(model, sparsity_ratio, projections, layers, [length], text or [], layout, benchmark)
        if gradients:
            given = {"--text": text, "--benchmark": benchmark, "--layers": layers, "--after-norm": after_norm}
            given |= {"--after-rope": after_rope, "--projections": projections != KINDS, "--layout": layout != "ours"}
            options.refuse(given, "does not go with --gradients, which looks at W_Q and W_K of all layers")
            options.check_gradients(config, length, num_prompts)
            from .analysis.gradients.command import inspect_gradients

            inspect_gradients(
                model,
                folder,
                config=config,
                length=length,
                num_prompts=num_prompts,
                sparsity_ratio=sparsity_ratio,
            )
            return
        given = {"--config": config, "--num-prompts": num_prompts != NUM_PROMPTS}
        options.refuse(given, "goes with --gradients only")
        from .analysis.inspect.command import inspect_activations

        inspect_activations(
            model,
            folder,
            files=text or [],
            benchmark=benchmark,
            length=length,
            layers=layers,
            kinds=projections,
            site=site,
            sparsity_ratio=sparsity_ratio,
            layout=layout,
        )


@app.command()
def perturb(
    model: Model,
    task: Annotated[str, typer.Option(help="needles, facts, ruler/NAME or longbench_v2 (Table 7).")] = "needles",
    length: Annotated[str, typer.Option(help="Tokens of a prompt, for RULER.")] = "4k",
    num_prompts: Annotated[
        int | None, typer.Option(help="Questions to answer. Default: 100, of LongBench v2 all.", show_default=False)
    ] = None,
    case: Annotated[
        str | None, typer.Option(help="Only this question of LongBench v2, e.g. 66ec41d3821e116aacb1c874 (Fig. 6).")
    ] = None,
    longbench_v2_data: Annotated[
        str, typer.Option(help="Hub id, or local data.json, parquet file or folder.")
    ] = "THUDM/LongBench-v2",
    reasoning_tokens: Annotated[int, typer.Option(help="Tokens to think with, for LongBench v2.")] = 4096,
    temperature: Annotated[
        float | None,
        typer.Option(help="0 is greedy. Default: 0, of LongBench v2 1 as in the paper.", show_default=False),
    ] = None,
    clamp: Annotated[
        str, typer.Option(help="Clamp to the mean of each question's own prompt (sample), or of all (pooled).")
    ] = "sample",
    text: Annotated[list[Path] | None, typer.Option(help="UTF-8 file to take the loss of; may be repeated.")] = None,
    text_length: Annotated[str, typer.Option(help="Tokens of each text.")] = "2k",
    sparsity_ratio: Lambda = 0.3,
    projections: Annotated[str, typer.Option(help="What is clamped: some of q,k,v.")] = "q,k",
    dose: Annotated[bool, typer.Option(help="Also take the loss at λ = 0.05 to 0.5.")] = True,
    engine: Annotated[str, typer.Option(help="Who answers: transformers or vllm.")] = "transformers",
    output: Annotated[Path | None, typer.Option(help="Default: runs/perturb/<model>.", show_default=False)] = None,
) -> None:
    """Clamp the top, bottom or random channels of each head, and see what is lost: accuracy, loss, repetition."""
    with usage_errors(), output_folder(output, "perturb", model) as folder:
        options.check_options(model, sparsity_ratio, projections, None, [length, text_length], text or [])
        options.check_perturb(task, num_prompts, case, longbench_v2_data, reasoning_tokens, temperature, clamp, engine)
        from .analysis.perturb.command import perturb_channels

        perturb_channels(
            model,
            folder,
            task=task,
            length=length,
            num_prompts=num_prompts,
            case=case,
            longbench_v2_data=longbench_v2_data,
            reasoning_tokens=reasoning_tokens,
            temperature=temperature,
            clamp=clamp,
            files=text or [],
            text_length=text_length,
            sparsity_ratio=sparsity_ratio,
            kinds=projections,
            dose=dose,
            engine=engine,
        )


@app.command()
def drift(
    base: Annotated[str, typer.Argument(help="Folder or Hub id of the model before training.", show_default=False)],
    trained: Annotated[str, typer.Argument(help="The same after training, or a checkpoint.", show_default=False)],
    sparsity_ratio: Annotated[
        float | None,
        typer.Option(help="λ of the massive rows. Default: the run's, else 0.3.", show_default=False),
    ] = None,
    magnitudes: Annotated[
        Path | None,
        typer.Option(help="magnitudes.safetensors that `longact inspect BASE` wrote, instead of measuring again."),
    ] = None,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Leave massive rows out: the base model is then not run.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Default: runs/drift/<trained>.", show_default=False)] = None,
) -> None:
    """Show which rows of W_Q and W_K training moved, against what its masks allowed. Exit code 3: against them."""
    with usage_errors(), output_folder(output, "drift", trained) as folder:
        check_here("BASE", base)
        check_here("TRAINED", trained)
        if sparsity_ratio is not None:
            check_sparsity_ratio(sparsity_ratio)
        options.check_magnitudes(magnitudes)
        from .analysis.drift.command import compare_weights

        code = compare_weights(
            base,
            trained,
            folder,
            sparsity_ratio=sparsity_ratio,
            magnitudes=magnitudes,
            weights_only=weights_only,
        )
    raise typer.Exit(code)


@app.command()
def report(
    results: Annotated[
        list[str],
        typer.Argument(help="Output folders of recipes/evaluate.py (the first: the baseline) and longact perturb."),
    ],
    output: Annotated[str | None, typer.Option(help="Also write OUTPUT.md and OUTPUT.png.")] = None,
) -> None:
    """Print the paper's Tables 1-7 from results: intervals, the paper's figures, differences, significance."""
    with usage_errors():
        check_folders(results)
        from .evaluation.report import report_results

        report_results(results, output)


@app.command()
def study(
    file: Annotated[str, typer.Argument(help="A study's YAML: a path, or a name in studies/.", show_default=False)],
    output: Annotated[
        str | None, typer.Option(help="Folder of all runs; default: the file's, else runs/study/NAME.")
    ] = None,
    devices: Annotated[str | None, typer.Option(help="GPUs of each run that goes on at a time, e.g. 0-3,4-7.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands and what they would take.")] = False,
    sbatch: Annotated[int | None, typer.Option(help="Print lines for Slurm, each run on so many GPUs.", min=1)] = None,
    gpu: GpuName = "H100",
    price_per_gpu_hour: Price = None,
) -> None:
    """Run arms × seeds of a recipe to their end, whatever stops them, and show what they show."""
    from .study.study_file import read_devices, read_study

    with usage_errors():
        read_study(file, output)  # before heavy libraries are loaded
        on, groups = gpu_named(gpu), read_devices(devices)
        from .study.command import run_study

        run_study(file, output, groups, dry_run, sbatch, on, price_per_gpu_hour)


@app.command()
def page(
    runs: Annotated[list[str], typer.Argument(help="Output folders of runs, finished or going on.")],
    output: Annotated[str | None, typer.Option(help="HTML file. Default: RUN/page.html.")] = None,
    max_rollouts: Annotated[int, typer.Option(help="Completions in the page at most.", min=1)] = 10_000,
) -> None:
    """Write one offline page: curves, rollouts and why they earned nothing, masks over time, settings."""
    with usage_errors():
        check_folders(runs)
        from .page.command import write_run_page

        write_run_page(runs, output, max_rollouts)


if __name__ == "__main__":
    app()
