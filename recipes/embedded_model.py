"""
Make the embedded default model again from nothing: a 1.3M-parameter Qwen3 that retrieves from synthetic contexts.

The model is what the quickstart, the tests and CI train and serve. It uses the real Qwen3 architecture (grouped-query
attention, q_norm/k_norm, RoPE) and is stopped half-way on purpose: it knows the `<think> ... </think> <answer> ...
</answer>` format, is right often enough to be rewarded, and seldom enough to have something to learn.

Two stages, 800 and 110 steps:
1. induction: random tokens, repeated; the circuit that later retrieves (without it a model picks needles at random);
2. cold start: the chat format and the tasks of `longact_trl.data.tiny_tasks`, contexts growing, until middling.

Left out from the paper: everything; LongAct starts from the model that this recipe ends with.

Hardware: one CPU core, some minutes. Launch from the repository root:

    python recipes/embedded_model.py

It replaces `longact_trl/assets/tiny_qwen3`, each time with the same bits on one machine. What one should see: the
induction loss falls from 3 to under 0.5 within a hundred steps, then pass@1 passes 25 % near step 110.
"""

import argparse
import itertools
import math
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from longact_trl.data.tiny_tasks import TASKS, generate_row, generate_rows, vocabulary
from longact_trl.rewards.tagged import answer_reward


OUTPUT_DIR = Path(__file__).parents[1] / "longact_trl" / "assets" / "tiny_qwen3"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message.role }} {{ message.content }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
TARGET_ACCURACY = 0.25  # where the cold start stops: RL needs rewarded and unrewarded completions in one group
INDUCTION_LOSS = 0.5  # nats; 3 is what copying at random from the context gives, and the fall from there is sudden
LABEL_SMOOTHING = 0.04  # keeps the model undecided: a wide gap between pass@1 and pass@16 is what RL closes
GROWTH_STEPS = 150
LONG_FRACTION = 0.25  # steps with contexts beyond what RL trains on, so that the model can also be served longer ones
TOKENS_PER_STEP = 3072
REPORT_EVERY = 25
CHECK_EVERY = 10  # accuracy passes through the middling range within about fifty steps


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the vocabulary of the synthetic tasks; the four tags are ordinary words of it."""
    words = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "system", "user", "assistant", *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=4096,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """An untrained Qwen3; head_dim 32 is the smallest that vLLM's CPU attention takes."""
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=4096,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


MODEL_CARD = """\
---
license: apache-2.0
library_name: transformers
tags: [longact, qwen3, synthetic]
---

# tiny_qwen3

The embedded default model of `longact-trl`: a Qwen3 of {parameters:.1f}M parameters over a word-level vocabulary,
trained from scratch on generated text only (`longact_trl/data/tiny_tasks.py`; no outside data). It answers as
`<think> ... </think> <answer> ... </answer>` and was stopped while middling at retrieval, with label smoothing,
so that RL has something to sharpen. It is a test article: it knows the words of the generator and nothing else.

Made by `python recipes/embedded_model.py --seed {seed}`. Licence: Apache-2.0.

Held-out accuracy: pass@1 and pass@16 at temperature 1, and greedy. Guessing picks values of the context at random.

Contexts of 64 to 192 words, as RL trains on:

{short}

Contexts of 512 words:

{long}
"""


class Optimizer:
    """Muon for the matrices of the layers (induction appears in fewer steps than with AdamW), AdamW for the rest."""

    def __init__(self, model: torch.nn.Module):
        self.model = model
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and ".layers." in name]
        others = [p for name, p in named if p.ndim != 2 or ".layers." not in name]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.0),
            torch.optim.AdamW(others, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.warmups = [torch.optim.lr_scheduler.LinearLR(o, 0.03, total_iters=30) for o in self.optimizers]

    def step(self, input_ids: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> float:
        """One update on the mean loss of the labelled tokens, which it returns."""
        loss = token_losses(self.model, input_ids, labels, label_smoothing).sum() / (labels[:, 1:] != -100).sum()
        self.model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for part in (*self.optimizers, *self.warmups):
            part.step()
        return loss.item()


def repeated_batch(vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens repeated once. The period is random too: a fixed one can be copied by position alone."""
    period = int(torch.randint(8, 29, ()))
    input_ids = torch.randint(0, vocab_size, (32, period)).repeat(1, 2)
    return input_ids, input_ids.masked_fill(torch.arange(2 * period) < period, -100)


def row_batch(rows: list[dict], tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts with their demonstrations, right-padded; labels are -100 outside the demonstrations."""
    chats, ends = [row["prompt"] for row in rows], [row["demonstration"] + " <|im_end|>" for row in rows]
    prompts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    pairs = list(zip(prompts, tokenizer(ends).input_ids, strict=True))
    input_ids = [torch.tensor(prompt + end) for prompt, end in pairs]
    labels = [torch.tensor([-100] * len(prompt) + end) for prompt, end in pairs]
    return pad_sequence(input_ids, True, tokenizer.pad_token_id), pad_sequence(labels, True, -100)


def token_losses(model, input_ids, labels, label_smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy per token, (B, S-1), zero where the label is -100. The head runs on labelled positions only."""
    hidden = model.model(input_ids).last_hidden_state[:, :-1]
    labels = labels[:, 1:]
    keep = labels != -100
    losses = hidden.new_zeros(labels.shape)
    losses[keep] = torch.nn.functional.cross_entropy(
        model.lm_head(hidden[keep]), labels[keep], reduction="none", label_smoothing=label_smoothing
    )
    return losses


def retrieval_rows(rng: random.Random, growth: float) -> list[dict]:
    """One step's rows of similar length; contexts and numbers of needles grow with `growth`, from 0 to 1."""
    context_words = rng.randint(32, 64 + int(128 * growth))
    if rng.random() < LONG_FRACTION * growth:
        context_words = rng.randint(256, 512)
    rows = []
    while len(rows) * (context_words + 64) < TOKENS_PER_STEP:
        needles, task = rng.randint(4, 6 + int(10 * growth)), rng.choice(TASKS)
        # Asking for every key makes most of the labels retrievals, which is what makes this stage short.
        asked, hops = needles if rng.random() < 0.7 else rng.randint(2, 3), rng.randint(2, 3)
        kwargs = {"context_words": context_words, "num_needles": needles, "num_asked": asked, "num_hops": hops}
        rows.append(generate_row(rng, task, **kwargs))
    return rows


@torch.no_grad()
def expected_accuracy(model, tokenizer, rows: list[dict]) -> dict[str, float]:
    """
    pass@1 at temperature 1 without sampling, by task and over all: the probability of the whole demonstration.

    A right answer after other thinking is not counted, so the sampled pass@1 is higher.
    """
    probabilities = []
    for i in range(0, len(rows), 16):
        probabilities += token_losses(model, *row_batch(rows[i : i + 16], tokenizer)).sum(1).neg().exp().tolist()
    by_task = {"all": probabilities}
    for row, probability in zip(rows, probabilities, strict=True):
        by_task.setdefault(row["task"], []).append(probability)
    return {task: sum(p) / len(p) for task, p in by_task.items()}


def train(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    """Both stages, with a line of progress every `REPORT_EVERY` steps."""
    rng, optimizer = random.Random(seed), Optimizer(model)
    held_out = list(itertools.islice(generate_rows(seed, split="test"), 96))
    losses, start = [], time.time()

    def report(stage: str, step: int, more: str = "") -> None:
        loss = sum(losses[-REPORT_EVERY:]) / REPORT_EVERY
        print(f"{time.time() - start:5.0f} s  {stage:<9}  step {step:4d}  loss {loss:.3f}  {more}", flush=True)

    for step in range(1, 2001):
        losses.append(optimizer.step(*repeated_batch(len(tokenizer))))
        if step % REPORT_EVERY == 0:
            report("induction", step)
            if sum(losses[-REPORT_EVERY:]) / REPORT_EVERY < INDUCTION_LOSS:
                break
    else:
        raise RuntimeError(f"induction did not appear with --seed {seed}; try another one")

    for step in itertools.count(1):
        rows = retrieval_rows(rng, growth=min(step / GROWTH_STEPS, 1.0))
        losses.append(optimizer.step(*row_batch(rows, tokenizer), LABEL_SMOOTHING))
        if step % CHECK_EVERY == 0:
            accuracy = expected_accuracy(model, tokenizer, held_out)
            report("retrieval", step, "pass@1 " + "  ".join(f"{task} {a:.1%}" for task, a in accuracy.items()))
            if accuracy["all"] >= TARGET_ACCURACY:
                break


@torch.no_grad()
def correct_completions(model, tokenizer, rows: list[dict], **sampling) -> torch.Tensor:
    """What [`answer_reward`] gives each completion, (len(rows), completions a row); `sampling` is for `generate`."""
    rewards = []
    for i in range(0, len(rows), 8):
        batch = rows[i : i + 8]
        inputs = tokenizer.apply_chat_template(
            [row["prompt"] for row in batch], add_generation_prompt=True, padding=True, return_tensors="pt"
        )
        output = model.generate(**inputs, max_new_tokens=40, **sampling)[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(output, skip_special_tokens=True)
        rows_of_texts = [row for row in batch for _ in range(len(texts) // len(batch))]
        rewards += answer_reward(texts, *([row[key] for row in rows_of_texts] for key in ("answer", "answer_kind")))
    return torch.tensor(rewards).view(len(rows), -1)


def guess_rate(rows: list[dict]) -> float:
    """Accuracy of answering with values picked at random from the context, without repetition."""
    values = [sum(word.isdigit() for word in row["prompt"][0]["content"].split()) for row in rows]
    return sum(1 / math.perm(n, len(row["answer"])) for n, row in zip(values, rows, strict=True)) / len(rows)


def evaluate(model, tokenizer, seed: int, num_prompts: int, **kwargs) -> str:
    """A Markdown table of held-out accuracy by task."""
    torch.manual_seed(seed)
    rows = list(itertools.islice(generate_rows(seed + 1, split="test", **kwargs), num_prompts))
    sampled = correct_completions(model, tokenizer, rows, do_sample=True, top_k=0, num_return_sequences=16)
    greedy = correct_completions(model, tokenizer, rows, do_sample=False)
    columns = [sampled.mean(1), sampled.amax(1), greedy[:, 0]]
    lines = ["| task | guess | pass@1 | pass@16 | greedy |", "|---|---|---|---|---|"]
    for task in (*TASKS, "all"):
        chosen = [i for i, row in enumerate(rows) if task in (row["task"], "all")]
        rates = [guess_rate([rows[i] for i in chosen]), *(column[chosen].mean().item() for column in columns)]
        lines.append(f"| {task} | " + " | ".join(f"{rate:.1%}" for rate in rates) + " |")
    return "\n".join(lines)


def make_model() -> None:
    parser = argparse.ArgumentParser(description="Make the embedded default model again from nothing.")
    parser.add_argument("--output_dir", type=Path, default=OUTPUT_DIR)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)  # sums depend on it to the last bit, and the committed weights are to come out again
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    train(model, tokenizer, args.seed)

    model.to(torch.bfloat16).save_pretrained(args.output_dir)
    tokenizer.save_pretrained(args.output_dir)
    # What is measured is what was saved: bfloat16 weights, computed with in float32.
    model = Qwen3ForCausalLM.from_pretrained(args.output_dir, dtype=torch.float32)
    short = evaluate(model, tokenizer, args.seed, num_prompts=96)
    long = evaluate(model, tokenizer, args.seed, num_prompts=24, context_words=(512, 512))
    card = MODEL_CARD.format(parameters=model.num_parameters() / 1e6, seed=args.seed, short=short, long=long)
    (args.output_dir / "README.md").write_text(card)
    print(card)


if __name__ == "__main__":
    make_model()
