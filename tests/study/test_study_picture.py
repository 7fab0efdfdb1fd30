"""The picture of a study: arms are told apart, however many there are."""

from types import SimpleNamespace

import pytest

from longact_trl.evaluation.statistics import Interval
from longact_trl.study.outcome import Arm
from longact_trl.study.picture import draw_study


def arm(steps: int = 3) -> Arm:
    curve = [1.0] * steps
    interval = Interval(0.5, 0.4, 0.6)
    return Arm([0, 1], [0.5, 0.6], interval, interval, 0.5, 0.1, 1e6, 60.0, [curve] * 2, list(range(steps)))


def draw(arms: dict):
    return draw_study(SimpleNamespace(title="Costs $2_$", baseline="arm 0", against=lambda name: "arm 0"), arms)


@pytest.mark.parametrize("count", [7, 18])
def test_no_two_curves_look_alike_and_none_is_behind_the_legend(count):
    figure = draw({f"arm {i}": arm() for i in range(count)})
    figure.draw_without_rendering()
    *_, rewards = figure.axes
    looks = {(line.get_color(), str(line._dash_pattern)) for line in rewards.lines}
    assert len(rewards.lines) == len(looks) == count
    legend = rewards.get_legend().get_window_extent()
    assert legend.x0 >= rewards.get_window_extent().x1 and legend.x1 <= figure.bbox.x1
    assert [text.get_text() for text in rewards.get_legend().get_texts()] == [f"arm {i}" for i in range(count)]


def test_runs_without_a_logged_reward_have_no_empty_scale():
    *_, rewards = draw({"arm 0": arm(0)}).axes
    assert [text.get_text() for text in rewards.texts] == ["no reward was logged"] and not len(rewards.get_xticks())
