"""The page in a browser: it says nothing on the console, fits a phone, follows keys and holds 10,000 rollouts."""

from itertools import pairwise

import pandas
import pytest

from helpers.chromium import chromium, find_chromium
from helpers.run_folder import write_run
from longact_trl.page.command import write_run_page


WIDTHS = (420, 1400)


@pytest.fixture(scope="module")
def browser():
    find_chromium()
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pages of one run, of two laid over each other, and of one without masks, parts or anything thrown away."""
    folder = tmp_path_factory.mktemp("pages")
    one = write_run(folder / "massive", steps=6, groups=12)
    two = write_run(folder / f"random-{'x' * 60}", steps=4, seed=1)
    bare = write_run(folder / "bare", steps=1, thrown=0)
    pages = {"one": [one], "two": [one, two], "bare": [bare]}
    for name, runs in pages.items():
        write_run_page(list(map(str, runs)), str(folder / f"{name}.html"))
    return {name: folder / f"{name}.html" for name in pages}


def is_drawn(page) -> None:
    page.until("document.querySelector('.group') && (document.querySelector('canvas') || maskSection.hidden)")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["one", "two", "bare"])
def test_nothing_is_wrong_and_nothing_sticks_out(browser, files, name, width, dark):
    page = browser.open(files[name], width, dark=dark)
    is_drawn(page)
    page.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.run("document.documentElement.scrollWidth") == page.run("innerWidth") == width
    seen = "[...document.querySelectorAll('body *')].filter((e) => e.getClientRects().length)"
    out = "!e.closest('.wide, pre, svg') && e.getBoundingClientRect().right > innerWidth + 1"
    assert page.run(f"{seen}.filter((e) => {out}).map((e) => e.outerHTML)") == []
    assert page.problems == [] and len(page.requests) == 1  # the file itself
    # Text can be read: WCAG asks for a contrast of 4.5.
    assert page.run(CONTRAST) >= 4.5


CONTRAST = """
(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = (e) => { const c = channels(getComputedStyle(e).backgroundColor);
    return c.length === 4 && !c[3] ? (e.parentElement ? behind(e.parentElement) : [255, 255, 255]) : c; };
  return Math.min(...[...document.querySelectorAll('body *')].filter((e) => e.getClientRects().length &&
    !['OPTION', 'SCRIPT'].includes(e.tagName) && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => { const [a, b] = [channels(getComputedStyle(e).color), behind(e)].map(light);
      return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); }));
})()
"""


def test_odd_rewards_names_and_scripts(browser, tmp_path):
    """True and false, none at all, markup as a name, Arabic: each is drawn, and nothing of it runs."""
    row = {"step": 1, "prompt": "ما هي العاصمة؟", "completion": "<!--<script>throw 1</script>", "advantage": 0.0}
    rows = [row | {"right": True, "<b>own</b>": None}, row | {"right": False, "<b>own</b>": -1.5}]
    file = tmp_path / "<!--<script>" / "completions" / "completions_00001.parquet"
    file.parent.mkdir(parents=True)
    pandas.DataFrame(rows).to_parquet(file)
    write_run_page([str(file.parents[1])], str(tmp_path / "page.html"))
    page = browser.open(tmp_path / "page.html", 420)
    page.until("document.querySelectorAll('.row').length === 2")
    assert page.run("document.querySelector('.group').innerText").count("own") == 2
    assert page.run("title.textContent") == "<!--<script>" and page.problems == []


def test_light_and_dark_differ(browser, files):
    colours = []
    for dark in (False, True):
        page = browser.open(files["one"], 420, dark=dark)
        is_drawn(page)
        pixels = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 32, 8).data].join()"
        colours.append((page.run("getComputedStyle(document.body).backgroundColor"), page.run(pixels)))
    assert colours[0][0] == "rgb(255, 255, 255)" and colours[0][0] != colours[1][0]
    assert colours[0][1] != colours[1][1]


def test_keys_go_through_steps_and_groups(browser, files):
    page = browser.open(files["one"], 1400)
    is_drawn(page)
    focused = "[...document.querySelectorAll('.group')].indexOf(document.activeElement)"
    page.press("j")
    assert page.run(focused) == 0
    for _ in range(9):
        page.press("j")
    assert page.run(focused) == 9  # eight were drawn at first
    page.press("k")
    assert page.run(focused) == 8
    assert page.run("document.activeElement.getBoundingClientRect().top < innerHeight")
    page.press("p")
    page.until("document.activeElement.querySelector('details pre')?.textContent.startsWith('Question 1.8')")
    page.press("ArrowRight")
    page.until("stepName.textContent === '2 of 6' && document.querySelector('.group')")
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    page.until("stepName.textContent === '1 of 6'")
    assert page.problems == []


def test_tab_goes_through_links_controls_and_prompts(browser, files):
    page = browser.open(files["one"], 1400)
    is_drawn(page)
    seen = set()
    for _ in range(12):
        page.press("Tab")
        seen.add(page.run("document.activeElement.id || document.activeElement.tagName"))
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert {"A", "step", "filter", "SUMMARY"} <= seen
    page.run("document.querySelector('.group summary').focus()")
    page.press("Enter")
    page.until("document.querySelector('.group details').open")


def test_groups_are_told_apart(browser, files):
    page = browser.open(files["one"], 1400)
    is_drawn(page)
    assert page.run("groupNote.textContent") == (
        "12 groups trained on, 1 of them without an advantage; 2 groups thrown away by dynamic sampling."
    )

    def shown(kind: str) -> list[str]:
        page.run(f"filter.value = '{kind}'; showRollouts()")
        return page.run("[...document.querySelectorAll('.group')].map((group) => group.textContent)")

    assert len(shown("mixed")) == 8 and page.run("more.textContent") == "Show 3 more groups (3 left)"
    [flat] = shown("flat")
    assert "nothing is learned here" in flat and "answer: '7' is not 8" in flat
    thrown = shown("thrown")
    assert len(thrown) == 2 and all("Not trained on: answer_reward is 0 for all." in text for text in thrown)


def test_checkpoints_and_settings(browser, files):
    page = browser.open(files["two"], 1400)
    is_drawn(page)
    caption = "document.querySelector('#masks figcaption').textContent"
    assert "rows at some checkpoint, churn" in page.run(caption)
    page.run("checkpoint.value = 2; showMasks()")
    page.until("checkpointName.textContent === 'step 4'")
    assert "some checkpoint" not in page.run(caption)
    assert page.run("document.querySelectorAll('tr.differs').length") > 0
    rows = page.run("document.querySelectorAll('#settings tr').length")
    page.run("differ.click()")
    assert 0 < page.run("document.querySelectorAll('#settings tr').length") < rows


def test_ten_thousand_rollouts_do_not_stall(browser, tmp_path):
    run = write_run(tmp_path / "long", steps=25, groups=20, completions=16, words=100, thrown=5)  # 25 · 25 · 16
    write_run_page([str(run)], str(tmp_path / "page.html"))
    page = browser.open(tmp_path / "page.html", 1400)
    is_drawn(page)
    assert sum(page.run("Object.values(data.runs[0].rollouts).flat()")) == 10_000
    so_far = [page.seconds]
    for step in range(2, 26):
        page.press("ArrowRight")
        page.until(f"stepName.textContent === '{step} of 25' && document.querySelector('.group summary')")
        so_far.append(page.seconds)
    assert page.run("document.querySelectorAll('*').length") < 5000  # of a step only what is looked at
    assert so_far[0] < 10 and max(after - before for before, after in pairwise(so_far)) < 1.5
    assert page.problems == []
