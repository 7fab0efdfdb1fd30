"""Checks of what the configuration says. Each returns what it found, or raises what is wrong."""

from importlib.util import find_spec
from math import gcd

from transformers import PretrainedConfig
from transformers.utils import is_kernels_available
from trl import get_peft_config

from ..method.projections import find_projections, modules_in_words
from ..method.sparsity import num_selected
from ..method.strategies import STRATEGIES
from ..models.reading import model_class_of, rope_kinds, skeleton_of, window_of, yarn_reach
from ..packing.obstacles import check_shared_prefix, obstacle, shares_prefixes
from ..training.preflight import check_model_config, check_rope
from .subject import Subject
from .verdict import CannotCheck, Caution


def batch(subject: Subject) -> str:
    """Sequences and prompts of a step, and of a generation."""
    args, ranks = subject.args, subject.placement.ranks
    micro, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    sequences = ranks * micro * accumulated
    step = f"{ranks} rank{'s' * (ranks != 1)} × {micro} × {accumulated} accumulated = {sequences} sequences a step"
    if not subject.is_rl:
        return f"{step} of up to {args.max_length:,} tokens" if args.max_length else step
    tensor_parallel = args.vllm_tensor_parallel_size if args.use_vllm and args.vllm_mode == "colocate" else 1
    if ranks % tensor_parallel:
        raise ValueError(
            f"`vllm_tensor_parallel_size`={tensor_parallel} does not divide {ranks} ranks. Write a divisor of them."
        )
    prompts = args.generation_batch_size // args.num_generations
    steps = args.generation_batch_size * args.num_iterations / sequences
    lasts = f"{steps:g} step{'s' * (steps != 1)}"
    return f"{step}; a generation of {prompts} prompts × {args.num_generations} completions lasts {lasts}"


def sharding(subject: Subject) -> str:
    """The backend, which `read_launch` has accepted, is installed."""
    placement = subject.placement
    if placement.backend.startswith("zero") and find_spec("deepspeed") is None:
        raise ValueError('It needs DeepSpeed, which is not installed. Run `pip install "longact-trl[deepspeed]"`.')
    offloaded = [name for name in ("optimizer", "weights") if getattr(placement, f"offload_{name}")]
    text = f"{placement.backend} on {placement.ranks} rank{'s' if placement.ranks > 1 else ''}"
    return (
        text
        + (f", {' and '.join(offloaded)} offloaded" if offloaded else "")
        + (": rows can be masked" if subject.is_rl else "")
    )


def model(subject: Subject) -> str:
    """Projections are understood, and λ selects channels of each."""
    config = subject.model_config
    note = "".join(f" ({note})" for note in subject.notes)
    if not subject.is_rl:
        return f"{type(config).__name__.removesuffix('Config')}{note}"
    args, quantised = subject.args, subject.model_args.load_in_4bit or subject.model_args.load_in_8bit
    check_model_config(config, args, get_peft_config(subject.model_args), quantised)
    if model_class_of(config) is None:
        raise CannotCheck(
            f"{type(config).__name__} is custom code: whether its projections are understood, and whether λ selects "
            f"channels of each, is known only once the model is loaded{note}"
        )
    try:
        shape = subject.shape
    except CannotCheck as reason:
        return Caution(
            f"λ selects channels of every projection: {_projections(config)}{note}; how large the model is could not "
            f"be read: {reason}"
        )
    size = _count(shape.parameters)
    if shape.trainable < shape.parameters:
        size += f", of which an adapter's {_count(shape.trainable).removesuffix(' parameters')} train"
    if not STRATEGIES[args.strategy].masks:
        return f"{size}, every row of W_Q and W_K learns{note}"
    dim = shape.head_dim
    k = num_selected(args.sparsity_ratio, dim)
    return (
        f"{size}; floor(λ·D) = floor({args.sparsity_ratio}·{dim}) = {k} channels ({k / dim:.1%}) of each of "
        f"{shape.heads} query and {shape.key // dim} key heads; {_projections(config)}{note}"
    )


def _projections(config: PretrainedConfig) -> str:
    """The modules of W_Q and W_K, and in how many layers they are."""
    found = find_projections(skeleton_of(config))
    attentions = {p.name.rpartition(".")[0] for p in found}
    layers = getattr(config.get_text_config(), "num_hidden_layers", len(attentions))
    of = f" of {layers}" if len(attentions) < layers else ""
    return f"{modules_in_words(found)}, in {len(attentions)}{of} layers"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f}B parameters" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M parameters"


def rope(subject: Subject) -> str:
    """Trainer and vLLM have the same positions, and enough of them."""
    config, args = subject.model_config, subject.args
    window, reach = window_of(config), yarn_reach(config)
    kind = " and ".join(sorted({rope.get("rope_type", "default") for rope in rope_kinds(config)}))
    if window is None:
        return f"{kind}, the model names no limit"
    if not subject.is_rl:
        if args.max_length and args.max_length > window:
            raise ValueError(
                f"`max_length`={args.max_length} is more than the model's max_position_embeddings={window}. Lower it."
            )
        used = f"{args.max_length:,} of " if args.max_length else ""
        return f"{kind}, {used}{window:,} positions"
    check_rope(config, args)
    room = f"{kind}, prompts of up to {subject.window:,} tokens before {args.max_completion_length:,} of completion"
    if args.use_vllm and args.vllm_mode != "colocate":
        raise CannotCheck(f"{room}; what the vLLM server was started with is not known here")
    if reach and reach > window:
        return Caution(
            f"YaRN reaches {reach:,} positions, but max_position_embeddings in config.json is {window:,}, and neither "
            f"trainer nor vLLM goes further. Write {reach} there."
        )
    return room + ("; trainer and vLLM read the same config.json" if args.use_vllm else "")


def attention(subject: Subject) -> str:
    """What the attention implementation needs."""
    name = subject.model_args.attn_implementation or "sdpa"
    if name == "eager":
        return Caution("eager keeps the whole attention matrix: write flash_attention_2, or sdpa")
    if name.startswith("flash_attention") and not find_spec("flash_attn") and not is_kernels_available():
        return Caution(
            f"{name} needs the package flash-attn or kernels, and this machine has neither: install one where you "
            "train (`pip install kernels`), or write `attn_implementation: sdpa`"
        )
    return name


def shared_prompts(subject: Subject) -> str:
    """Whether a prompt is forwarded once, and how often where ranks divide its group."""
    args = subject.args
    check_shared_prefix(subject.model_config, args)
    if not shares_prefixes(subject.model_config, args):
        why = obstacle(subject.model_config, args) if args.shared_prefix != "off" else None
        return "each completion forwards its prompt again" + (f": {why.removesuffix('.')}" if why else "")
    chunks = f", {args.prefix_chunk_size:,} tokens at a time" if args.prefix_chunk_size else ""
    group, micro, micro_batches = args.num_generations, args.per_device_train_batch_size, args.steps_per_generation
    if micro * micro_batches % group == 0:
        return f"a prompt is forwarded once for its {group} completions{chunks}"
    whole = group // gcd(group, micro)  # micro-batches that hold whole groups
    together = micro_batches == args.gradient_accumulation_steps
    name = "gradient_accumulation_steps" if together else "steps_per_generation"
    return Caution(
        f"a rank generates {micro * micro_batches} completions, so some groups of {group} lie on several ranks, and "
        f"each of these forwards the prompt{chunks}. Write `{name}: {-(-micro_batches // whole) * whole}` to keep "
        "groups whole"
    )
