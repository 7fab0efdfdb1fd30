import pytest

from longact_trl.rewards.reasons import why_no_answer_reward, why_no_format_reward


def tagged(answer: str) -> str:
    return f"<think>so</think><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("text", "golds", "kind", "reason"),
    [
        (tagged("B"), ["B"], "choice", None),
        (tagged("C"), ["B"], "choice", "'C' is not 'B'"),
        (tagged("31"), ["30"], "number", "'31' is not 30, off by 3.33%"),
        (tagged("thirty"), ["30"], "number", "'thirty' is not one number; 30 is wanted"),
        (tagged("7"), ["0"], "number", "'7' is not 0"),
        (tagged("12"), ["10", "13"], "number", "'12' is not 13, off by 7.69%"),
        (tagged("a, b"), ["a", "b", "c"], "list", "'a, b' is not the list a, b, c"),
        (tagged("It was Paris, I think"), ["Paris"], "string", "which stands in it among other words"),
        (tagged(" "), ["Paris"], None, "the answer is empty"),
        ("<think>so", ["B"], "choice", "thinking never ends"),
        ("<think>so</think>B", ["B"], "choice", "no <answer> … </answer> after </think>"),
        (tagged("A") + "<answer>B</answer>", ["B"], "choice", "more than one <answer>"),
        ("<answer>B</answer><think>so</think>", ["B"], "choice", "no <answer> … </answer> after </think>"),
    ],
)
def test_why_an_answer_earned_nothing(text, golds, kind, reason):
    found = why_no_answer_reward(text, golds, kind)
    assert found == reason if reason is None else reason in found


def test_the_reasons_agree_with_the_rewards():
    from longact_trl import answer_reward, format_reward

    texts = [tagged("B"), tagged("C"), "<think>so", "B", tagged("A") + tagged("B"), "</think><answer>B</answer>"]
    for text in texts:
        assert (why_no_answer_reward(text, ["B"], "choice") is None) == bool(
            answer_reward([text], answer=[["B"]], answer_kind=["choice"])[0]
        ), text
        assert (why_no_format_reward(text) is None) == bool(format_reward([text])[0]), text
        prefilled = bool(format_reward([text], think_prefilled=True)[0])
        assert (why_no_format_reward(text, think_prefilled=True) is None) == prefilled, text


def test_what_a_format_lacks():
    assert why_no_format_reward("<think>so</think> B") == "no <answer> and no </answer>"
