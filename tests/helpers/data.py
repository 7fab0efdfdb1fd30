"""What the tests of the data share."""

import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from longact_trl.rewards.tagged import answer_reward

from .paths import FIXTURES


CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def read_fixture(name):
    return [json.loads(line) for line in (FIXTURES / name).read_text(encoding="utf-8").splitlines()]


def write_jsonl(path, rows):
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return str(path)


def assert_golds_earn_the_reward(dataset):
    """Every gold answer, put where the model puts it, scores 1 by its own reward, called as TRL calls it."""
    for row in dataset:
        completions = [
            [{"role": "assistant", "content": f"<think>so</think>\n<answer>{gold}</answer>"}] for gold in row["answer"]
        ]
        columns = {name: [row[name]] * len(completions) for name in ("answer", "answer_kind", "task")}
        assert answer_reward(completions=completions, prompts=[row["prompt"]], **columns) == [1.0] * len(completions)


def word_tokenizer():
    """A token is what stands between spaces, so that long prompts are quick to tokenize."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def byte_tokenizer():
    """A token is a byte, so that any cut may fall inside a character."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>"]})
    fast.chat_template = CHAT_TEMPLATE
    return fast
