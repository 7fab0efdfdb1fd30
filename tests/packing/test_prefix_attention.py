"""Attention over packed groups: its memory, and the kernels it calls."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.integrations import flash_attention

from helpers.models import make_decoder
from longact_trl.packing.attention import SUFFIX, packed_attention
from longact_trl.packing.blocks import Scores, attend, attend_backward
from longact_trl.packing.forward import packed_attention_in
from longact_trl.packing.layout import Group, PackedLayout


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return output


def test_no_tensor_grows_with_the_square_of_the_tokens_or_with_prompts_times_completions():
    for length in (256, 512):
        query, key, value = (torch.randn(1, heads, length + 4 * 8, 16, requires_grad=True) for heads in (4, 2, 2))
        segments = tuple(slice(length + 8 * i, length + 8 * (i + 1)) for i in range(4))
        layout = PackedLayout(torch.empty(0), torch.empty(0), (Group(slice(0, length), segments),))
        with LargestTensor() as largest:
            packed_attention(query, key, value, layout).sum().backward()
        assert largest.numel == query.numel()


def test_the_kernels_of_a_gpu_take_the_same_calls():
    """Shapes and types only: without a GPU nothing is computed."""
    with torch.no_grad(), FakeTensorMode():
        query, key, value = (
            torch.empty(1, heads, tokens, 16, dtype=torch.bfloat16, device="cuda")
            for heads, tokens in ((4, 5), (2, 9), (2, 9))
        )
        out, lse = attend(query, key, value, False, Scores(0.2), None)
        assert (out.shape, out.dtype, lse.shape, lse.dtype) == (query.shape, query.dtype, (1, 4, 5), torch.float32)
        grads = attend_backward(out, query, key, value, out, lse, False, Scores(0.2), None)
        assert [grad.shape for grad in grads] == [query.shape, key.shape, value.shape]


def test_flash_attention_finds_its_kernel_by_its_own_name_where_nothing_is_packed(monkeypatch):
    """It looks the kernel up by the name in the config, which is ours while a run lasts."""
    names = []

    def note(query, *args, attn_implementation, **kwargs):
        names.append(attn_implementation)
        return query

    monkeypatch.setattr(flash_attention, "_flash_attention_forward", note)
    model = make_decoder("qwen3")
    model.config._attn_implementation = "flash_attention_2"
    with packed_attention_in(model), torch.no_grad():
        model(input_ids=torch.tensor([[5, 6, 7]]))
        assert model.config._attn_implementation.endswith(SUFFIX)
    assert names == ["flash_attention_2"] * 2
