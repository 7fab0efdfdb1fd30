"""
How much memory a run takes on each GPU, from formulas: nothing is allocated. All sizes are bytes.

T tokens of a micro-batch, L layers, H hidden, I intermediate, Q rows of W_Q, K rows of W_K, b bytes of an activation.

`benchmarks/memory_plan.py` compares the peak with the measured one.
"""

from dataclasses import dataclass

from .shape import ModelShape
from .workload import Load, Placement


GIB = 2**30
FLOAT32 = 4
RESERVE = 4 * GIB
"""CUDA context, NCCL buffers, fragmentation, what a sleeping vLLM keeps. An assumption, not measured here."""
LIVE_PARAMETERS = 10**9
"""DeepSpeed's `stage3_max_live_parameters`: gathered parameters that ZeRO-3 keeps at most."""
BUCKET = 5 * 10**8
"""DeepSpeed's `reduce_bucket_size`: elements of gradients that are reduced together."""
HEAD_TOKENS, HEAD_COLUMNS = 4096, 32768
"""Tile of logits that TRL's fused LM head makes at a time."""
TILE_COPIES = {"cuda": 0.0, "cpu": 7.25}
"""Tiles beside it in the head's backward: Triton works in place, torch operations make new tensors."""
VLLM_WORKSPACE = 2 * GIB
"""What vLLM takes of its share beside weights and KV cache. An assumption, not measured here."""


def state_bytes(shape: ModelShape, placement: Placement, load: Load) -> dict[str, int]:
    """
    Weights, gradients and optimizer states on one rank.

    A parameter takes, before sharding, with s optimizer states and weights loaded in w bytes: on one GPU w + w + w·s;
    under DDP another w for its buckets; under DeepSpeed b + b + 4·(1+s), the 1 being the float32 master; under FSDP2,
    which accelerate trains in float32, 4 + 4 + 4·s. What an adapter leaves frozen takes its weight alone.

    Args:
        shape (`ModelShape`):
            The model.
        placement (`Placement`):
            Where the state lies.
        load (`Load`):
            What is computed.

    Returns:
        `dict[str, int]`: Bytes of `weights`, `gradients`, `optimizer`.
    """
    states = load.optimizer_states
    if placement.is_deepspeed:
        each = {"weights": load.compute_bytes, "gradients": load.compute_bytes, "optimizer": FLOAT32 * (1 + states)}
    else:
        width = FLOAT32 if placement.backend == "fsdp2" else load.weight_bytes
        buckets = 2 if placement.backend == "ddp" else 1
        each = {"weights": width, "gradients": width * buckets, "optimizer": width * states}
    counts = {"weights": shape.parameters, "gradients": shape.trainable, "optimizer": shape.trainable}
    sizes = {what: counts[what] * width // placement.share_of(what) for what, width in each.items()}
    sizes["optimizer"] *= not placement.offload_optimizer
    sizes["weights"] *= not placement.offload_weights
    return sizes


def transient_weights(shape: ModelShape, placement: Placement, load: Load) -> int:
    """
    Copies of weights and gradients that live only while a layer works.

    ZeRO-3 keeps up to `LIVE_PARAMETERS` gathered, FSDP2 two layers, embedding and head; both, and ZeRO-1/2, reduce
    gradients in a buffer. Autocast over float32 weights keeps a bfloat16 copy of each.

    Args:
        shape (`ModelShape`):
            The model.
        placement (`Placement`):
            Where the state lies.
        load (`Load`):
            What is computed.

    Returns:
        `int`: Bytes.
    """
    width = load.compute_bytes
    if placement.backend == "zero3":
        return width * (min(shape.parameters, LIVE_PARAMETERS) + min(shape.parameters, BUCKET))
    if placement.is_deepspeed:
        return width * min(shape.parameters, BUCKET)
    if placement.backend == "fsdp2":
        outside = shape.parameters - shape.layers * shape.layer_parameters
        return width * (outside + 2 * shape.layer_parameters) + FLOAT32 * shape.layer_parameters
    return width * shape.parameters if width < load.weight_bytes else 0


def layer_bytes(shape: ModelShape, load: Load, last: bool = False) -> int:
    """
    What one layer keeps for its backward.

    A token leaves 6·H (the residual stream twice, and both norms before and after their weight), 2·Q + K for attention
    (its output, the rotated query and key), K for the value, 4·I for a gated MLP. A normalised query and key add
    2·Q + 2·K. Keys and values are repeated for each query head unless attention does so itself. In bfloat16 each
    norm also keeps its input in float32. Attention keeps a float32 for each head, and with `"eager"` its T×T matrix.
    In the last layer, tokens of a shared prefix leave nothing of what comes after attention: 3·H and 4·I less.

    Args:
        shape (`ModelShape`):
            The model.
        load (`Load`):
            What is computed.
        last (`bool`, *optional*, defaults to `False`):
            Whether it is the last layer.

    Returns:
        `int`: Bytes of one layer.
    """
    keys = shape.key if load.attention.startswith("flash") or load.packed else shape.query
    attention = 3 * shape.hidden + 2 * shape.query + 2 * keys
    normed = shape.hidden
    if shape.qk_norm:
        attention += 2 * shape.query + 2 * shape.key
        normed += shape.query + shape.key
    wide = FLOAT32 if load.compute_bytes < FLOAT32 else 0
    each = load.compute_bytes * attention + FLOAT32 * shape.heads + wide * normed
    after = load.compute_bytes * (3 * shape.hidden + 4 * shape.intermediate) + wide * shape.hidden
    matrix = 0
    if load.attention == "eager":  # softmax in float32, and cast
        matrix = shape.heads * (FLOAT32 + (load.compute_bytes if load.compute_bytes < FLOAT32 else 0))
    squares = load.batch * (load.prompt + load.completion) ** 2 * matrix
    return load.tokens * each + (load.to_the_end if last else load.tokens) * after + squares


def head_bytes(shape: ModelShape, load: Load) -> int:
    """
    Backward of TRL's fused LM head: gradients of hidden states and of the whole head in float32, their casts, a tile
    of logits, and on a CPU the copies that torch makes of it.

    Args:
        shape (`ModelShape`):
            The model.
        load (`Load`):
            What is computed.

    Returns:
        `int`: Bytes.
    """
    rows, columns = min(load.scored, HEAD_TOKENS), min(shape.vocab, HEAD_COLUMNS)
    tile = rows * (HEAD_COLUMNS * load.compute_bytes + columns * FLOAT32 * TILE_COPIES[load.device])
    cast = load.compute_bytes if load.compute_bytes < FLOAT32 else 0
    weight = shape.embedding if shape.trainable == shape.parameters else 0  # an adapter leaves the head frozen
    return int(tile) + (FLOAT32 + cast) * (weight + load.scored * shape.hidden)


def training_moment(shape: ModelShape, placement: Placement, load: Load, gradients: int) -> tuple[str, int, int]:
    """
    The moment of a forward and backward that needs most beside weights and optimizer states.

    Three can be the highest: the head's backward, with every layer's activations and no gradient yet (all of
    them if an earlier micro-batch left them); that of the top layer, or of the one below it where a shared prefix ends
    within the last; that of the lowest, with one layer's activations and all gradients. With checkpointing a layer
    keeps its input alone (H a token) and one layer at a time is computed again. A layer's backward itself takes
    2·I + 2·H a token and the gradient of an MLP weight.

    Args:
        shape (`ModelShape`):
            The model.
        placement (`Placement`):
            Where the state lies.
        load (`Load`):
            What is computed.
        gradients (`int`):
            Bytes of all gradients on the rank.

    Returns:
        `tuple[str, int, int]`: Which moment, bytes of activations then, and bytes of gradients then.
    """
    b = load.compute_bytes
    layer, last = layer_bytes(shape, load), layer_bytes(shape, load, last=True)
    kept = load.tokens * shape.hidden * b if load.checkpointing else layer
    below = (shape.layers - 1) * kept
    final = load.tokens * shape.hidden * (2 * b + (FLOAT32 if b < FLOAT32 else 0))

    def backward(tokens: int) -> int:
        return tokens * b * (2 * shape.intermediate + 2 * shape.hidden) + b * shape.hidden * shape.intermediate

    top = max(below + last + backward(load.to_the_end), below - kept + layer + backward(load.tokens))
    stays = load.accumulates or placement.backend not in ("single", "ddp")
    head = gradients if stays else gradients * shape.embedding // shape.parameters
    all_kept = below + (kept if load.checkpointing else last)
    lowest = layer + backward(load.tokens) + (b * shape.embedding if shape.tied else 0)
    moments = [
        ("the LM head", all_kept + final + head_bytes(shape, load), gradients if stays else 0),
        ("the top layer", top, head),
        ("the lowest layer", lowest, gradients),
    ]
    return max(moments, key=lambda moment: moment[1] + moment[2])


def kept_bytes(shape: ModelShape, load: Load) -> int:
    """
    K and V of a prompt that several passes share, and their gradients.

    Args:
        shape (`ModelShape`):
            The model.
        load (`Load`):
            What is computed.

    Returns:
        `int`: Bytes on the GPU; with `prefix_offload` of one layer, while the host has them all.
    """
    each = load.prompt * shape.kv_elements * load.compute_bytes
    return load.kept_copies * (each // shape.layers if load.offload_prefix else each)


@dataclass(frozen=True)
class MemoryPlan:
    """
    What one GPU holds.

    Args:
        parts (`dict[str, int]`):
            Bytes by what they are, while training.
        generation (`dict[str, int]`):
            The same while completions are generated; empty where none are, or a vLLM server does.
        moment (`str`):
            Which moment of training the peak is at: `"the LM head"`, `"the top layer"` or `"the lowest layer"`.
        kv_tokens (`int`):
            Tokens that vLLM's KV cache has room for, below 0 where not even its weights fit; 0 without vLLM.
    """

    parts: dict[str, int]
    generation: dict[str, int]
    moment: str
    kv_tokens: int = 0

    @property
    def training_peak(self) -> int:
        return sum(self.parts.values())

    @property
    def generation_peak(self) -> int:
        return sum(self.generation.values())

    @property
    def peak(self) -> int:
        return max(self.training_peak, self.generation_peak)


def plan_memory(shape: ModelShape, placement: Placement, load: Load, gpu_bytes: int = 0) -> MemoryPlan:
    """
    The plan of a run.

    Args:
        shape (`ModelShape`):
            The model.
        placement (`Placement`):
            Where the state lies.
        load (`Load`):
            What is computed.
        gpu_bytes (`int`, *optional*, defaults to `0`):
            Memory of a GPU, of which vLLM takes its share.

    Returns:
        `MemoryPlan`: Without `RESERVE`.
    """
    state = state_bytes(shape, placement, load)
    held = {"weights": state["weights"], "optimizer": state["optimizer"]}
    if load.reference:
        held["reference model"] = shape.parameters * load.compute_bytes // placement.share_of("weights")
    moments = [training_moment(shape, placement, each, state["gradients"]) for each in load.passes()]
    moment, activations, gradients = max(moments, key=lambda moment: moment[1] + moment[2])
    vllm = int(load.vllm_share * gpu_bytes)
    transient = transient_weights(shape, placement, load)
    training = {
        **held,
        "gradients": gradients,
        "activations": activations,
        "kept K and V": kept_bytes(shape, load),
        "gathered weights and buckets": transient,
        "vLLM": 0 if load.vllm_sleeps else vllm,
    }
    generation, kv_tokens = dict(held), 0
    if placement.is_deepspeed or placement.backend == "fsdp2":  # elsewhere zero_grad frees them
        generation["gradients"] = state["gradients"]
    if vllm:
        generation["vLLM"] = vllm
        weights = shape.parameters * load.compute_bytes // load.vllm_ranks
        kv_tokens = (vllm - weights - VLLM_WORKSPACE) * load.vllm_ranks // (shape.kv_elements * load.compute_bytes)
    elif load.generated:
        window = load.generated * (load.prompt + load.completion)
        generation["KV cache"] = window * shape.kv_elements * load.compute_bytes
        working = load.compute_bytes * (3 * shape.hidden + 3 * shape.intermediate)
        generation["prefill"] = load.generated * load.prompt * working
        generation["gathered weights and buckets"] = transient
    else:
        generation = {}
    return MemoryPlan(training, generation, moment, kv_tokens)
