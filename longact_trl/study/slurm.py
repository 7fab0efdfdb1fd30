"""Lines for Slurm, and whether a run is given as many GPUs as its accelerate config starts processes."""

import shlex

from ..settings.paths import recipe_root
from ..settings.recipe_yaml import find_config, read_config
from .execution import LOCK, commands
from .study_file import Run, Study


PORT = "$((29500 + SLURM_JOB_ID % 1000))"
"""Of the job's own, where two share a node; below those that Linux gives to whoever asks for any."""
BUSY = "this run still runs, started by another job or another longact study"


def launch_of(study: Study) -> dict:
    """The study's accelerate config."""
    name = study.train["accelerate_config"]
    return read_config(find_config(name, recipe_root() / "accelerate_configs"))


def check_gpus(study: Study, gpus: int) -> None:
    """
    Check that a run starts as many processes as it has GPUs. Another number would be another batch.

    Args:
        study (`Study`):
            The study.
        gpus (`int`):
            GPUs that each run is given.

    Raises:
        `ValueError`: If it starts more or fewer.
    """
    name, processes = study.train["accelerate_config"], int(launch_of(study).get("num_processes", 1))
    if gpus != processes:
        raise ValueError(
            f"{name} starts {processes} process{'es' * (processes != 1)}, but a run is given {gpus} "
            f"GPU{'s' * (gpus != 1)}. Give each {processes}, or copy {name}, change its `num_processes` (and "
            "`gradient_accumulation_steps`, so that a step has as many sequences), and name the copy in the study."
        )


def sbatch_line(run: Run, gpus: int) -> str:
    """
    What submits a run.

    Args:
        run (`Run`):
            The run.
        gpus (`int`):
            GPUs of all nodes together. Nodes are those of the accelerate config: each starts one launcher, and the
            first evaluates.

    Returns:
        `str`: One `sbatch` command.
    """
    *training, evaluation = (shlex.join(command) for command in commands(run))
    nodes = int(launch_of(run.study).get("num_machines", 1))
    asked = f"--nodes {nodes} --gpus-per-node {gpus // nodes}"
    before = f"exec 9>{shlex.quote(str(run.folder / LOCK))}; flock --nonblock 9 || {{ echo {BUSY} >&2; exit 1; }}; "
    if nodes > 1:
        asked += " --ntasks-per-node 1"
        before += 'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1); '
        # Expanded on each node, which has its own SLURM_NODEID.
        rank = f'--machine_rank "$SLURM_NODEID" --main_process_ip "$0" --main_process_port {PORT}'
        launch = "accelerate.commands.launch"
        training = [line.replace(launch, f"{launch} {rank}", 1) for line in training]
        training = [f'srun --kill-on-bad-exit=1 bash -c {shlex.quote(line)} "$head"' for line in training]
        evaluation = f"srun --nodes 1 --ntasks 1 {evaluation}"
    wrapped = before + " && ".join([*training, evaluation])
    name, log = (shlex.quote(str(text)) for text in (f"{run.arm}-{run.seed}", run.folder / "slurm-%j.txt"))
    return f"sbatch --job-name {name} {asked} --output {log} --wrap {shlex.quote(wrapped)}"
