"""An lm-eval model that writes down every finished request, so that a run that was killed repeats none.

lm-eval's own `use_cache` leaves out sampled requests, and the paper samples at temperature 1.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather, gather_object
from tqdm import tqdm


try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
except ImportError as error:
    raise ImportError('Benchmarks run through lm-eval: pip install "longact-trl[eval]"') from error


# Requests that vLLM gets at once, and a crash loses: several times what it decodes together at long context.
VLLM_CHUNK = 128


class JournaledLM(LM):
    """
    Wraps an lm-eval model; what it answered lies in `FOLDER/NAME-rankR.jsonl`, one line a request.

    Args:
        lm (`LM`):
            The model.
        folder (`Path`):
            Where the journals lie. Those of all ranks are read, so a run may continue with other replicas.
        name (`str`):
            Journal of this task.
        backend (`str`):
            `"vllm"` or `"transformers"`.
        batch_size (`int`):
            Requests that transformers decodes together, and a crash loses.
        temperature (`float`):
            0 decodes greedily.
        seed (`int`):
            Seed of sampling. Each request has a seed of its own with vLLM, each batch with transformers.
    """

    def __init__(
        self, lm: LM, folder: Path, name: str, backend: str, batch_size: int, temperature: float, seed: int
    ) -> None:
        super().__init__()
        self.lm, self.name, self.vllm, self.state = lm, name, backend == "vllm", replicas()
        self.chunk = VLLM_CHUNK if self.vllm else batch_size
        self.temperature, self.seed = temperature, seed
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}-rank{self.rank}.jsonl"
        self.done = dict(_read_lines(folder.glob(f"{name}-rank*.jsonl")))

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """
        Answer requests, those of earlier runs from the journal.

        Args:
            requests (`Sequence[Instance]`):
                lm-eval's requests; `doc["max_new_tokens"]` is the budget of each.

        Returns:
            `list[str]`: One response a request.
        """
        prompts = {self._key(request): request for request in requests}
        todo = sorted((key for key in prompts if key not in self.done), key=lambda key: -len(prompts[key].args[0]))
        progress = tqdm(total=len(prompts), initial=len(prompts) - len(todo), desc=self.name, disable=self.rank != 0)
        with self._open() as journal:
            for start in range(0, len(todo), self.chunk):
                keys = todo[start : start + self.chunk]
                responses = self._generate({key: prompts[key] for key in keys})
                for key, response in zip(keys, responses, strict=True):
                    self.done[key] = response
                    journal.write(json.dumps({"key": key, "response": response}) + "\n")
                journal.flush()
                os.fsync(journal.fileno())
                progress.update(len(keys))
        progress.close()
        return [self.done[self._key(request)] for request in requests]

    def _generate(self, requests: dict[str, Instance]) -> list[str]:
        seeds = [int(key[:8], 16) for key in requests]
        if not self.vllm and self.temperature:
            torch.manual_seed(seeds[0])
        instances = []
        for request, seed in zip(requests.values(), seeds, strict=True):
            # The model's own distribution: what a checkpoint's generation_config.json adds to it is for chatting.
            sampling = {"do_sample": self.temperature > 0, "temperature": self.temperature, "repetition_penalty": 1.0}
            sampling |= {"top_p": 1.0, "top_k": 0, "min_p": 0.0} if self.temperature else {}
            if self.vllm:
                sampling |= {"seed": seed, "skip_special_tokens": True}  # transformers skips them, too
            kwargs = {"until": [], "max_gen_toks": request.doc["max_new_tokens"], **sampling}
            instances.append(Instance("generate_until", request.doc, (request.args[0], kwargs), 0))
        return self.lm.generate_until(instances, disable_tqdm=True)

    def _key(self, request: Instance) -> str:
        """Names a request: what is read and how it is continued, not where it stands in the run."""
        what = [request.args[0], request.doc["max_new_tokens"], self.temperature, self.seed]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def _open(self):
        """A line cut off by a crash is closed, so that the next one stands by itself."""
        torn = self.path.is_file() and self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n")
        journal = self.path.open("a", encoding="utf-8")
        if torn:
            journal.write("\n")
        return journal

    def loglikelihood(self, requests):
        raise TypeError("The benchmarks here are generated, not compared by likelihood.")

    loglikelihood_rolling = loglikelihood

    # What lm-eval asks of a model that runs in several replicas. Its own backend knows them on GPUs only, and takes a
    # process's number on its node for its number in all.

    @property
    def rank(self) -> int:
        return self.state.process_index

    @property
    def world_size(self) -> int:
        return self.state.num_processes

    @property
    def device(self) -> torch.device:
        return self.state.device

    def all_gather(self, tensor):
        return gather(tensor)

    def gather_object(self, obj, dst=0):
        return gather_object([obj]) if self.world_size > 1 else [obj]

    def barrier(self) -> None:
        self.state.wait_for_everyone()


def replicas() -> PartialState:
    """The processes that share this run: one, or as many as `accelerate launch` or `torchrun` started."""
    # They wait for the slowest, however long that takes.
    patience = {"timeout": timedelta(weeks=52)} if "WORLD_SIZE" in os.environ else {}
    return PartialState(cpu=not torch.cuda.is_available(), **patience)


def _read_lines(paths) -> Iterator[tuple[str, str]]:
    for path in paths:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                key, response = entry["key"], entry["response"]
            except (ValueError, TypeError, KeyError):  # cut off by a crash, or written over
                continue
            if isinstance(key, str) and isinstance(response, str):
                yield key, response
