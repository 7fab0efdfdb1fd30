"""Tables of completions: how many there are, and what dynamic sampling threw away."""

from concurrent.futures import Future

import pandas
import pytest
from transformers import TrainerCallback
from transformers.utils.hub import PushInProgress

from helpers.noting import answer_reward, length_reward, prompt_number
from helpers.sampling import logs_of, make_noting
from helpers.trainers import make_args, make_trainer
from longact_trl.training.completion_tables import THROWN_AWAY, TRAINED, steps_to_keep, tables


def logging_reward(prompts, completions, log_extra, **kwargs) -> list[float]:
    log_extra("number", [prompt_number(prompt) for prompt in prompts])
    return answer_reward(prompts, completions)


def test_what_is_thrown_away_is_written_with_its_reason(tmp_path):
    trainer = make_noting(tmp_path, reward=[logging_reward, length_reward], log_completions=True)
    trainer.reward_func_names[0] = "answer_reward"
    trainer.train()
    reasons = set()
    for step, (log, generation) in enumerate(zip(logs_of(trainer), trainer.generations, strict=True), start=1):
        file = tables(tmp_path, THROWN_AWAY).get(step)
        count = int(log["longact/groups_thrown_away"]) * 4
        if not count:
            assert file is None
            continue
        table = pandas.read_parquet(file)
        assert len(table) == min(count, 8)  # as many as are trained on, at most
        assert (table["step"] == step).all()
        sampled = {len(prompt) - 9 for rows in generation.sampled for prompt, _ in rows}
        for _, group in table.groupby(table.index // 4):
            [number], [reason] = group["number"].unique(), group["reason"].unique()
            assert number == prompt_number(group["prompt"].iloc[0]) and number in sampled
            varies = number % 3 == 0
            assert group["answer_reward"].tolist() == ([0, 1, 0, 1] if varies else [1] * 4)
            assert reason == ("sampled to replace another, and not needed" if varies else "answer_reward is 1 for all")
            reasons.add(reason)
        # Nothing is in both tables.
        trained = pandas.read_parquet(tables(tmp_path)[step])
        both = {(str(row.prompt), str(row.completion)) for row in table.itertuples()}
        assert not both & {(str(row.prompt), str(row.completion)) for row in trained.itertuples()}
    assert len(reasons) == 2


def test_nothing_is_written_that_nobody_wants(tmp_path):
    make_noting(tmp_path, max_steps=1).train()
    assert not tables(tmp_path) and not tables(tmp_path, THROWN_AWAY)


def test_tables_stay_within_their_bound(tmp_path):
    settings = {"log_completions": True, "num_completions_to_print": 0, "max_logged_completions": 16, "max_steps": 7}
    make_trainer(tmp_path, **settings).train()
    assert list(tables(tmp_path, TRAINED)) == [2, 4, 6, 7]  # 16 rows
    with pytest.raises(ValueError, match="`max_logged_completions` must be a positive number.*got 0"):
        make_args(tmp_path, max_logged_completions=0)


class Pushing(TrainerCallback):
    """A push in the background that lasts from the second step to the end of the fifth."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.trainer.push_in_progress = PushInProgress([Future()])
        if state.global_step == 5:
            self.during = list(tables(args.output_dir))
            self.trainer.push_in_progress.jobs[0].set_result(None)


def test_tables_that_are_being_pushed_are_not_removed(tmp_path):
    pushing = Pushing()
    settings = {"log_completions": True, "num_completions_to_print": 0, "max_logged_completions": 12, "max_steps": 6}
    pushing.trainer = make_trainer(tmp_path, callbacks=[pushing], **settings)
    pushing.trainer.train()
    assert pushing.during == [1, 2, 3, 4, 5] and list(tables(tmp_path)) == [2, 4, 6]


def test_a_table_that_a_kill_has_cut_off_stops_no_later_run(tmp_path):
    settings = {"log_completions": True, "num_completions_to_print": 0, "max_logged_completions": 12}
    make_trainer(tmp_path, max_steps=1, **settings).train()
    whole = tables(tmp_path)[1].read_bytes()
    for length in (0, 4, 8, len(whole) // 2, len(whole) - 1):
        for kind in (TRAINED, THROWN_AWAY):
            file = tmp_path / kind / "completions_00009.parquet"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(whole[:length])
            assert 9 not in tables(tmp_path, kind)
    (tmp_path / THROWN_AWAY / "completions_00001.parquet").write_bytes(whole[:100])  # beside a whole one
    make_trainer(tmp_path, max_steps=3, **settings).train()
    assert list(tables(tmp_path)) == [1, 2, 3]


def test_which_steps_stay():
    rows, most = {}, 0
    for step in range(5, 5005, 5):
        rows[step] = 10
        kept = steps_to_keep(rows, 100, 5)
        rows = dict.fromkeys(kept, 10)
        assert step in kept and sum(rows.values()) <= 100
        most = max(most, len(kept))
        gaps = [b - a for a, b in zip(sorted(kept), sorted(kept)[1:], strict=False)]
        assert step < 200 or max(gaps) <= step / 3  # spread over the whole run
    assert most == 10 and len(rows) >= 5
    assert steps_to_keep({5: 200, 10: 300}, 100, 5) == {10}
    assert steps_to_keep({}, 100, 5) == set()
