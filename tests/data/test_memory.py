"""A local file goes through loader and length policy in memory that does not grow with its rows."""

import json
import subprocess
import sys
from pathlib import Path

from data_helpers import read_fixture


# Anonymous memory alone: pages of a memory-mapped Arrow file are counted as resident, but the kernel may drop them.
READ = """
import sys, threading, time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import datasets
datasets.config.HF_DATASETS_CACHE = Path(sys.argv[2] + ".cache")
from data_helpers import word_tokenizer
from longact_trl.data.docqa import load_docqa
from longact_trl.data.length import apply_length_policy

peak = 0

def watch():
    global peak
    while True:
        status = Path("/proc/self/status").read_text()
        peak = max(peak, int(status.partition("RssAnon:")[2].split()[0]))
        time.sleep(0.01)

threading.Thread(target=watch, daemon=True).start()
rows = load_docqa(sys.argv[2])
fitting = apply_length_policy(rows, word_tokenizer(), 200, "truncate_middle", num_proc=1)
assert len(fitting) == len(rows) == int(sys.argv[3])
print("PEAK", peak / 1024)
"""
KILOBYTES = 10


def peak_megabytes(folder: Path, num_rows: int) -> float:
    """Most anonymous memory of a process that reads `num_rows` rows, one in ten of them too long."""
    [row] = [row for row in read_fixture("docqa.jsonl") if row["data_source"].startswith("docmath")][:1]
    path = folder / f"{num_rows}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for index in range(num_rows):
            # Few long words: what is measured is memory, and the tokenizer takes its time by words.
            size, word = KILOBYTES * 1000, "x" * (50 if index % 10 == 0 else 500)
            content = f"{index} " + f"{word} " * (size // len(word)) + row["prompt"][0]["content"]
            file.write(json.dumps({**row, "prompt": [{"role": "user", "content": content}]}) + "\n")
    command = [sys.executable, "-c", READ, str(Path(__file__).parents[1]), str(path), str(num_rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return float(done.stdout.rpartition("PEAK")[2])


def test_memory_does_not_grow_with_rows(tmp_path):
    few, many = peak_megabytes(tmp_path, 2_000), peak_megabytes(tmp_path, 10_000)
    more_text = 8_000 * KILOBYTES / 1000  # in megabytes
    assert many - few < more_text / 3, f"{few:.0f} MB for 2,000 rows, {many:.0f} MB for 10,000"
