"""Clamp channels of Q and K while a model runs (LongAct, sec. 5): what is lost without them?

Shapes: B batch, S sequence, H heads, D channels per head, C = H·D channels of a projection.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Union

import torch
from torch import nn

from ...method.projections import Projection, find_projections


if TYPE_CHECKING:
    from vllm import LLM


@contextmanager
def perturb_activations(
    model: Union[nn.Module, "LLM"],
    rows: Mapping[str, torch.Tensor],
    means: Mapping[str, float | torch.Tensor] | None = None,
) -> Iterator[None]:
    """
    Replace chosen channels by the mean of their tensor, in prefill and in decoding, for as long as the context lasts.
    Afterwards the model computes the same bits as before: no hook is left and no weight was touched.

    Args:
        model (`nn.Module` or `vllm.LLM`):
            A causal language model of transformers, plain or wrapped by PEFT; or a vLLM engine in this process
            (`VLLM_ENABLE_V1_MULTIPROCESSING=0`), made with `enforce_eager=True`.
        rows (`dict[str, torch.BoolTensor]`):
            Name of a projection to the rows to clamp, shape (H·D,), as [`select_rows`] returns it.
        means (`dict[str, float | torch.Tensor]`, *optional*):
            Name of a projection to the value that its channels are clamped to; or, with transformers, to a value for
            each sequence of the batch, shape (B,). By default the mean over all tokens and channels of the very tensor
            that is clamped, so padding and the other sequences of a batch have a small part in it, and in decoding it
            is the mean of one token; pass `means` where answers must not depend on batching, as between vLLM and
            transformers.

    Raises:
        `ValueError`: If a projection is not the model's, or a mask has another number of rows than it; or if vLLM
            replays graphs that hooks cannot reach, or is spread over several processes.

    Example:

    ```python
    rows = {name: select_rows(m, 0.3) for name, m in measure_magnitudes(model, inputs).items()}
    with perturb_activations(model, rows):
        print(tokenizer.decode(model.generate(**inputs, max_new_tokens=32)[0]))
    ```
    """
    if isinstance(model, nn.Module):
        with _clamped(find_projections(model, ("q", "k", "v")), rows, means):
            yield
        return
    config = model.llm_engine.vllm_config
    if not config.model_config.enforce_eager:
        raise ValueError(
            "vLLM replays compiled graphs that hooks cannot reach: make the engine with `enforce_eager=True`."
        )
    if config.parallel_config.world_size > 1:
        raise ValueError("Hooks reach a vLLM engine of one worker only: set `tensor_parallel_size=1`.")
    [projections] = model.apply_model(_projections_of_vllm)
    model.reset_prefix_cache()  # keys and values of prompts seen before are not clamped
    try:
        with _clamped(projections, rows, means):
            yield
    finally:
        model.reset_prefix_cache()


@contextmanager
def _clamped(
    projections: list[Projection], rows: Mapping[str, torch.Tensor], means: Mapping[str, float | torch.Tensor] | None
) -> Iterator[None]:
    found = {p.name: p for p in projections}
    for name, mask in rows.items():
        if name not in found:
            raise ValueError(f"The model has no projection {name!r}. It has {', '.join(list(found)[:3])}, …")
        size = found[name].num_heads * found[name].head_dim
        if mask.shape != (size,):
            raise ValueError(f"{name} has {size} rows, but its mask has shape {tuple(mask.shape)}.")
    handles = []
    try:
        for name, mask in rows.items():
            mean = None if means is None else means[name]
            handles.append(found[name].module.register_forward_hook(_clamp(found[name], mask, mean)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _clamp(projection: Projection, mask: torch.Tensor, mean: float | torch.Tensor | None):
    def hook(module: nn.Module, args: tuple, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        nonlocal mask
        values, *rest = output if isinstance(output, tuple) else (output,)  # vLLM's linear layers return their bias
        part = values[..., projection.rows]
        value = part.mean(dtype=torch.float32) if mean is None else torch.as_tensor(mean)
        if value.numel() > 1:  # one a sequence
            value = value.view(-1, 1, 1)
        mask = mask.to(values.device)  # a copy at most once
        values = values.clone()
        values[..., projection.rows] = torch.where(mask, value.to(values), part)
        return (values, *rest) if isinstance(output, tuple) else values

    return hook


def _projections_of_vllm(model: nn.Module) -> list[Projection]:
    """vLLM fuses Q, K and V into one `qkv_proj`; their names here are those that transformers gives them."""
    from vllm.model_executor.layers.linear import QKVParallelLinear

    found = []
    for name, module in model.named_modules():
        if not isinstance(module, QKVParallelLinear):
            continue
        offset = 0
        for kind, num_heads in (("q", module.num_heads), ("k", module.num_kv_heads), ("v", module.num_kv_heads)):
            for alias in (f"{name.removesuffix('qkv_proj')}{kind}_proj", f"{name}:{kind}"):
                found.append(Projection(alias, kind, module, num_heads, module.head_size, offset))
            offset += num_heads * module.head_size
    return found


def measure_means(
    model: nn.Module, batches: Iterable[Mapping[str, torch.Tensor]], kinds: tuple[str, ...] = ("q", "k")
) -> dict[str, torch.Tensor]:
    """
    The mean of each projection's output over all tokens, heads and channels of a batch ("the entire query (or key)
    tensor": LongAct, sec. 5).

    Args:
        model (`nn.Module`):
            A causal language model, plain or wrapped by PEFT.
        batches (`Iterable[Mapping[str, torch.Tensor]]`):
            Batches without padding: `input_ids` (B, S).
        kinds (`tuple[str]`, *optional*, defaults to `("q", "k")`):
            Which of `"q"`, `"k"` and `"v"`.

    Returns:
        `dict[str, torch.Tensor]`: By projection name, float64 of shape (number of batches,).
    """
    means: dict[str, list[float]] = {}

    def noting(projection: Projection):
        def hook(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            mean = output[..., projection.rows].mean(dtype=torch.float64)
            means.setdefault(projection.name, []).append(mean.item())

        return hook

    handles = []
    try:
        for projection in find_projections(model, kinds):
            handles.append(projection.module.register_forward_hook(noting(projection)))
        with torch.no_grad():
            for batch in batches:
                model(input_ids=batch["input_ids"], logits_to_keep=1, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in means.items()}
