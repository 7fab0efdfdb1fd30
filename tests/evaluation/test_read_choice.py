"""A letter that earns the reward in training is the letter that evaluation scores."""

import pytest

from longact_trl.evaluation.final_answer import judge
from longact_trl.rewards.answers import answer_matches


ONE_LETTER = ["B", "(B)", "**B**", "**(B)**", "b", "(b).", "[B]", "（B）", "Ｂ", "B。", "B:", "B.", " B\n"]
ONE_LETTER += ['"B"', "“B”", "`B`", "【B】", "〔B〕", "B,", "B；", r"\boxed{\text{B}}", "$$B$$", "```\nB\n```"]
NO_LETTER = ["A or B", "B, C", "not B", "A B", "Both", "", "B?C"]
GOLDS = {
    "longbench_v2": ("answer", ["B"]),
    "infinitebench": ("longbook_choice_eng", ["a house", "B"]),
}


@pytest.mark.parametrize("benchmark", GOLDS)
@pytest.mark.parametrize("text", ONE_LETTER + NO_LETTER)
def test_training_and_evaluation_read_the_same_letter(benchmark, text):
    task, gold = GOLDS[benchmark]
    doc = {"benchmark": benchmark, "task": task, "gold": gold, "reasoning": True, "prompt": ""}
    right = answer_matches(text, ["B"], "choice")
    assert right == (text in ONE_LETTER)
    score = judge(doc, f"<think>x</think>\n<answer>{text}</answer>").score
    # In prose En.MC's official rule looks for a letter, and training does not: it need not agree there.
    assert score == 1.0 if right else score == 0.0 or benchmark == "infinitebench"


def test_what_stands_in_no_tags_is_read_by_the_official_rule_alone():
    doc = {"benchmark": "longbench_v2", "task": "answer", "gold": ["B"], "reasoning": True, "prompt": ""}
    assert judge(doc, "<think>x</think>\n(B)").score == 0.0
    assert judge({**doc, "reasoning": False}, "<answer>B</answer>").score == 0.0
    assert judge(doc, "<think>x</think>\n<answer>The correct answer is (B)</answer>").score == 1.0
