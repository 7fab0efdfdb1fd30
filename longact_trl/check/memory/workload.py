"""What decides how much memory a rank takes: where the state of training lies, and what is computed at a time."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Placement:
    """
    How the state of training lies on the ranks.

    Args:
        backend (`str`):
            `"single"`, `"ddp"`, `"zero0"` to `"zero3"` or `"fsdp2"`.
        ranks (`int`, *optional*, defaults to `1`):
            Number of GPUs over which it is sharded.
        offload_optimizer (`bool`, *optional*, defaults to `False`):
            Whether optimizer states are in the host's memory.
        offload_weights (`bool`, *optional*, defaults to `False`):
            Whether weights are in the host's memory while they are not used (ZeRO-3).
    """

    backend: str
    ranks: int = 1
    offload_optimizer: bool = False
    offload_weights: bool = False

    @property
    def is_deepspeed(self) -> bool:
        return self.backend.startswith("zero")

    def share_of(self, what: str) -> int:
        """Over how many ranks `what` (`"weights"`, `"gradients"`, `"optimizer"`) is divided."""
        sharded = {
            "zero1": ("optimizer",),
            "zero2": ("optimizer", "gradients"),
            "zero3": ("optimizer", "gradients", "weights"),
            "fsdp2": ("optimizer", "gradients", "weights"),
        }
        return self.ranks if what in sharded.get(self.backend, ()) else 1


@dataclass(frozen=True)
class Load:
    """
    What one rank computes.

    Args:
        batch (`int`):
            B, sequences of a micro-batch (`per_device_train_batch_size`).
        prompt (`int`):
            P, tokens of the longest prompt.
        completion (`int`):
            C, tokens of the longest completion.
        group (`int`, *optional*, defaults to `1`):
            G, completions of a prompt (`num_generations`); only `shared_prefix` and generation use it.
        shared_prefix (`bool`, *optional*, defaults to `False`):
            Whether the completions of a prompt share one forward of it.
        chunk (`int`, *optional*):
            `prefix_chunk_size`.
        offload_prefix (`bool`, *optional*, defaults to `False`):
            `prefix_offload`.
        micro_batches (`int`, *optional*, defaults to `1`):
            Micro-batches of a step over which a rank's group can lie.
        checkpointing (`bool`, *optional*, defaults to `True`):
            Gradient checkpointing.
        accumulates (`bool`, *optional*, defaults to `True`):
            Whether several micro-batches make a step, so that gradients are there from the second on.
        weight_bytes (`int`, *optional*, defaults to `2`):
            Bytes of a weight as loaded (`dtype`).
        compute_bytes (`int`, *optional*, defaults to `2`):
            b, bytes of an activation: 2 with `bf16`, else 4.
        optimizer_states (`int`, *optional*, defaults to `2`):
            States that the optimizer has for a parameter: 2 for AdamW.
        attention (`str`, *optional*, defaults to `"flash_attention_2"`):
            `attn_implementation`. `"eager"` keeps the attention matrices.
        reference (`bool`, *optional*, defaults to `False`):
            Whether there is a reference model (`beta` above 0).
        generated (`int`, *optional*, defaults to `0`):
            Sequences that a rank generates at once, without vLLM.
        vllm_share (`float`, *optional*, defaults to `0.0`):
            `vllm_gpu_memory_utilization` of colocated vLLM; 0 without.
        vllm_sleeps (`bool`, *optional*, defaults to `False`):
            `vllm_enable_sleep_mode`.
        vllm_ranks (`int`, *optional*, defaults to `1`):
            `vllm_tensor_parallel_size`.
        device (`str`, *optional*, defaults to `"cuda"`):
            `"cpu"` for the measurements: TRL's head then scores prompts too.
    """

    batch: int
    prompt: int
    completion: int
    group: int = 1
    shared_prefix: bool = False
    chunk: int | None = None
    offload_prefix: bool = False
    micro_batches: int = 1
    checkpointing: bool = True
    accumulates: bool = True
    weight_bytes: int = 2
    compute_bytes: int = 2
    optimizer_states: int = 2
    attention: str = "flash_attention_2"
    reference: bool = False
    generated: int = 0
    vllm_share: float = 0.0
    vllm_sleeps: bool = False
    vllm_ranks: int = 1
    device: str = "cuda"

    @property
    def tokens(self) -> int:
        """T, tokens of a micro-batch: B·(P+C), or with a shared prefix one prompt for up to G completions."""
        prompts = -(-self.batch // self.group) if self.shared_prefix else self.batch
        return prompts * self.prompt + self.batch * self.completion

    @property
    def scored(self) -> int:
        """N, positions whose logits are computed: completions on a GPU or behind a shared prefix, else every one."""
        completions = self.device == "cuda" or self.shared_prefix
        return self.batch * self.completion if completions else self.tokens - self.batch

    @property
    def packed(self) -> bool:
        """Whether rows go through the model packed, so that attention reads K and V as they are."""
        return self.shared_prefix and self.batch * self.micro_batches > 1

    @property
    def to_the_end(self) -> int:
        """
        Tokens that the last layer takes beyond K and V: of packed rows, completions. With checkpointing all, since
        newer transformers recompute all; where they do not, that is one layer's input (H·b a token) too much, at most
        1.1 % of a plan in `docs/memory_guide.md`.
        """
        completions = self.packed and self.group > 1 and not self.checkpointing
        return self.batch * self.completion if completions else self.tokens

    @property
    def in_chunks(self) -> bool:
        """Whether a prompt is longer than a chunk, so that it runs apart from the rows."""
        return self.shared_prefix and self.chunk is not None and self.prompt > self.chunk

    @property
    def kept_copies(self) -> int:
        """
        Tensors as large as a prompt's K and V that are kept beside the pass that needs most: K, V, gK and gV beside a
        chunk; gK and gV beside the last micro-batch of a group, which has the prompt in its graph.
        """
        across = self.shared_prefix and self.micro_batches > 1 and self.batch < self.group
        return 2 if self.in_chunks else int(across)

    def passes(self) -> list["Load"]:
        """The passes with gradient of a step that differ in size: the micro-batch, or its rows and a chunk."""
        if not self.in_chunks:
            return [self]
        whole = replace(self, chunk=None)
        rows = replace(whole, prompt=1, group=1)  # the prompt's last token
        stretch = replace(whole, batch=1, prompt=self.chunk, completion=0, checkpointing=False)
        return [rows, replace(stretch, micro_batches=2)]  # a chunk is packed, however many rows read it
