"""Checks of what the run stands on: versions, memory, disk, logins, earlier checkpoints."""

import os
import shutil
from collections.abc import Callable
from functools import wraps
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
from packaging.requirements import Requirement

from ..models.reading import window_of
from ..training.checkpoints import check_strategy, resolve_resume
from ..training.preflight import check_vllm
from .memory.changes import changes_that_fit
from .memory.disk import checkpoint_bytes, saved_bytes
from .memory.plan import GIB, RESERVE, plan_memory
from .subject import Subject
from .verdict import CannotCheck, Caution


def versions(subject: Subject) -> str:
    """What is installed is what the package was tested with."""
    if subject.is_rl:
        check_vllm(subject.args)
    try:
        wanted = [Requirement(line) for line in requires("longact-trl") or [] if "extra" not in line]
    except PackageNotFoundError as error:
        raise CannotCheck("longact-trl is not installed, so what it requires is not known") from error
    for requirement in wanted:
        if not requirement.specifier.contains(version(requirement.name), prereleases=True):
            raise ValueError(
                f"{requirement.name} {version(requirement.name)} is installed, but longact-trl needs {requirement}. "
                f"Run `pip install '{requirement}'`."
            )
    names = ["trl", "transformers", "torch"]
    found = ", ".join(f"{name} {version(name)}" for name in names)
    return found + (", a vLLM that TRL supports" if subject.is_rl and subject.args.use_vllm else "")


def size_text(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / GIB:.1f} GiB" if size > GIB else f"{size * 1024 / GIB:.1f} MiB"


def memory(subject: Subject) -> str:
    """The memory plan fits the GPU, and vLLM's share holds a sequence."""
    shape, load = subject.shape, subject.load()
    result = plan_memory(shape, subject.placement, load, subject.gpu_bytes)
    sequence = (subject.args.vllm_max_model_length or window_of(subject.model_config) or 0) if load.vllm_share else 0
    if result.kv_tokens < sequence:
        raise ValueError(
            f"vLLM would not start: beside its weights its share has room for {max(result.kv_tokens, 0):,} tokens of "
            f"KV cache, less than one sequence of {sequence:,}. Raise `vllm_gpu_memory_utilization` (now "
            f"{load.vllm_share}) or `vllm_tensor_parallel_size`, or lower `vllm_max_model_length`."
        )
    reserve = 0 if subject.on_cpu else RESERVE
    peak, limit = result.peak + reserve, subject.gpu_bytes
    numbers = f"peak {size_text(peak)} of {size_text(limit)}"
    if peak > limit:
        changes = [] if subject.on_cpu else changes_that_fit(shape, subject.placement, load, limit)
        fits = "; ".join(f"`{what}` → {size_text(size)}" for what, size in changes[:5])
        raise ValueError(f"{numbers}: does not fit. What would: {fits or 'more than one change, or a smaller model'}")
    if load.vllm_share:
        sequences = subject.args.generation_batch_size // subject.placement.ranks * load.vllm_ranks
        wanted = -(-sequences // load.group) * load.prompt + sequences * load.completion
        if wanted > result.kv_tokens:
            return Caution(
                f"{numbers}; vLLM's KV cache holds {result.kv_tokens:,} of the {wanted:,} tokens that {sequences} "
                "sequences can have at once, so some wait for others"
            )
    return numbers


def where_it_trains(check: Callable[[Subject], str]) -> Callable[[Subject], str]:
    """Let a failure be a warning on a machine that only prepares a run for another one."""

    @wraps(check)
    def checked(subject: Subject) -> str:
        try:
            return check(subject)
        except ValueError as error:
            if subject.trains_here:
                raise
            return Caution(f"here, where the run cannot train for want of a GPU: {error}")

    return checked


@where_it_trains
def start(subject: Subject) -> str:
    """The model to start from is there where a cold start leaves it."""
    if missing := subject.missing_start:
        raise ValueError(missing.message)
    return str(subject.model)


@where_it_trains
def disk(subject: Subject) -> str:
    """The checkpoints fit the disk."""
    folder = Path(subject.args.output_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    each = checkpoint_bytes(subject.shape, subject.placement, subject.load())
    needed = saved_bytes(subject.shape, subject.placement, subject.load(), subject.args)
    text = f"{size_text(each)} a checkpoint, {size_text(needed)} at most; {size_text(free)} free in {folder}"
    if needed > free:
        raise ValueError(
            f"{text}. Lower `save_total_limit` (the newest is written before the oldest goes), write "
            "`save_only_model: true` (then no run can be continued), or another `output_dir`."
        )
    return text


@where_it_trains
def tracker(subject: Subject) -> str:
    """The trackers are installed and logged in."""
    found = []
    for name in subject.args.report_to:
        if find_spec(name) is None:
            raise ValueError(
                f'`report_to: {name}`, but {name} is not installed. Run `pip install "longact-trl[track]"`.'
            )
        found.append(f"{name} ({_login(name, subject.args)})")
    return ", ".join(found) or "none asked for"


def _login(name: str, args) -> str:
    if name == "wandb":
        if (mode := os.environ.get("WANDB_MODE", "")) in ("offline", "disabled", "dryrun"):
            return mode
        from requests.utils import get_netrc_auth  # where wandb looks; it brings requests along

        host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
        if not os.environ.get("WANDB_API_KEY") and not get_netrc_auth(host):
            raise ValueError(
                "`report_to: wandb`, but nobody is logged in, and the run would stop to ask. Run `wandb login`, set "
                "WANDB_MODE=offline, or write `report_to: trackio`."
            )
        return "a key is set; whether it is valid is seen at the start"
    if name == "trackio" and getattr(args, "trackio_space_id", None):
        return f"space {args.trackio_space_id}, {_hub_user()}"
    return "no login needed"


@where_it_trains
def hub(subject: Subject) -> str:
    """Who wants to push can."""
    return f"pushes to the Hub, {_hub_user()}" if subject.args.push_to_hub else "nothing is pushed"


def _hub_user() -> str:
    if not huggingface_hub.get_token():
        raise ValueError("The Hub wants a login to push to. Run `hf auth login`, or set HF_TOKEN.")
    if huggingface_hub.is_offline_mode():
        raise CannotCheck("there is a Hub token; offline, whether it is valid is not known")
    try:
        return f"logged in as {huggingface_hub.whoami()['name']}"
    except huggingface_hub.errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 401:
            raise ValueError("The Hub refuses the token that is set. Run `hf auth login` again.") from None
        raise CannotCheck("there is a Hub token, but the Hub does not answer") from None
    except OSError:
        raise CannotCheck("there is a Hub token, but the Hub cannot be reached") from None


def resume(subject: Subject) -> str:
    """What is in the output directory fits what the run is told to do with it."""
    args = subject.args
    checkpoint = resolve_resume(args.resume_from_checkpoint, args.output_dir)
    if checkpoint is None:
        return f"a new run in {args.output_dir}"
    if subject.is_rl:
        check_strategy(checkpoint, args.strategy)
    return f"continues from {checkpoint}"
