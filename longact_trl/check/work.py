"""
Operations and bytes of what a run does, counted from the sizes of its model. Nothing is run.

Two floating-point operations for each weight and token in linear layers, 4·D for each pair of a query and a key in
each head. With a backward pass three times as many (3.5 in attention, whose flash kernels compute scores again), once
more for what gradient checkpointing computes again; frozen weights have no gradient of their own. Norms, rotations
and softmax are not counted.

Shapes: P tokens of a prompt, G rows that begin with it, C tokens of each completion.
"""

from .memory.shape import ModelShape


def triangle(n: float) -> float:
    """Pairs of a query and a key in a causal sequence of n tokens."""
    return n * (n + 1) / 2


def pass_flops(
    shape: ModelShape,
    P: float,
    G: float,
    C: float,
    training: bool,
    shared: bool = True,
    checkpointing: bool = True,
    head_on_prompts: bool = False,
) -> float:
    """
    Forward pass over a prompt's completions to score them, or forward and backward pass to train on them.

    Args:
        shape (`ModelShape`):
            The model.
        P, G, C (`float`):
            Prompt, rows and completion, as above.
        training (`bool`):
            Whether there is a backward pass.
        shared (`bool`, *optional*, defaults to `True`):
            Whether the prompt is forwarded once. Its last token then stands in each row.
        checkpointing (`bool`, *optional*, defaults to `True`):
            Gradient checkpointing.
        head_on_prompts (`bool`, *optional*, defaults to `False`):
            Whether the LM head also runs where nothing is scored, as TRL's does on CPUs.

    Returns:
        `float`: Floating-point operations.
    """
    skipped = 0.0  # what the last layer does not compute of a prefix: all but Q, K and V
    if shared:
        tokens, pairs = P - 1 + G * (C + 1), triangle(P - 1) + G * ((C + 1) * (P - 1) + triangle(C + 1))
        pairs -= triangle(P - 1) / shape.layers
        skipped = 2 * shape.hidden * (shape.query + 3 * shape.intermediate) * (P - 1)
    else:
        tokens, pairs = G * (P + C), G * triangle(P + C)
    head_tokens = G * C
    if head_on_prompts:
        head_tokens = G * (C + 1) if shared else tokens
    linear = _linear(shape) * tokens - skipped
    attention, head = _attention(shape) * pairs, 2 * shape.embedding * head_tokens
    if not training:
        return linear + attention + head
    frozen = shape.trainable < shape.parameters
    # TRL's fused head computes its logits again.
    return (3 - frozen + checkpointing) * linear + (3.5 + checkpointing) * attention + (4 - frozen) * head


def prefill_flops(shape: ModelShape, P: float) -> float:
    """A prompt read once, before its first new token."""
    return _linear(shape) * P + _attention(shape) * triangle(P) + 2 * shape.embedding


def decode_flops(shape: ModelShape, P: float, C: float) -> float:
    """C tokens written one by one behind a prompt of P."""
    return (_linear(shape) + 2 * shape.embedding) * C + _attention(shape) * (C * P + triangle(C))


def decode_bytes(shape: ModelShape, P: float, C: float, sequences: float, at_once: float, width: int) -> float:
    """
    What is read from memory while C tokens of each sequence are written: all weights once for each token of the
    sequences that are written at once, and of each sequence all keys and values so far.

    Args:
        shape (`ModelShape`):
            The model.
        P, C (`float`):
            Prompt and completion.
        sequences (`float`):
            Completions in all.
        at_once (`float`):
            Completions that are written at the same time, at most `sequences`.
        width (`int`):
            Bytes of a weight, and of an element of K and V.

    Returns:
        `float`: Bytes.
    """
    weights = C * sequences / at_once * shape.parameters
    return width * (weights + sequences * (C * P + triangle(C)) * shape.kv_elements)


def _linear(shape: ModelShape) -> float:
    """For each token: Q, K, V, O and a gated MLP in each layer."""
    weights = shape.hidden * (2 * shape.query + 2 * shape.key) + 3 * shape.hidden * shape.intermediate
    return 2 * shape.layers * weights


def _attention(shape: ModelShape) -> float:
    """For each pair: a score and a weighted value in each head."""
    return 4 * shape.query * shape.layers
