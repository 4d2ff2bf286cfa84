"""The page by itself: a long table, thousands of clips, dark screens, and figures and tables for a paper."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.browser import open_page
from fixtures.tables import row, table
from matplotlib.figure import Figure

from ifcar.pipelines.comparison.formats import latex
from ifcar.pipelines.report.answer import answers_of
from ifcar.pipelines.report.attribute_figures import FEWEST_CLIPS, MOST_VALUES, make_attribute
from ifcar.pipelines.report.drawing import drawing_style, svg_bytes
from ifcar.pipelines.report.gallery import OUTCOMES_OF_TWO, Card, Gallery, Guess, Verdict
from ifcar.pipelines.report.page import LIGHT_INK, ChapterPage, Section, render, with_dark_mode
from ifcar.pipelines.report.paper import COLUMN_INCH, PAGE_INCH, column_pdf
from ifcar.pipelines.report.records import Told, records_of
from ifcar.pipelines.report.tables import results_table

NUM_CLIPS, CARDS_A_PAGE = 10_000, 24
CLASSES = [f"class {k}" for k in range(50)]
ROWS = [
    row(f"head-{k} with a long name, streams both, small", [0.3 + 0.01 * k], 0.2 if k else None, protocol=protocol)
    for protocol in ("compositional", "standard")
    for k in range(15)
]


def gallery_of_many() -> Gallery:
    told = [
        Told(
            clip_id=f"clip-{k}",
            classes=[k % 50],
            outcome=k % 4,
            instances=k % 3,
            verdicts=[(k % 2 == 0, [(k % 50, 0.5), (3, 0.25)])] * 2,
        )
        for k in range(NUM_CLIPS)
    ]
    guesses = [Guess(number=0, name=CLASSES[0], probability=0.5, right=True)]
    verdicts = [Verdict(letter=letter, system=letter, right=True, guesses=guesses) for letter in "AB"]
    card = Card(clip_id="clip-0", label=CLASSES[0], verdicts=verdicts, strip=None)
    return Gallery(
        cards=[card],
        records=records_of(told, CLASSES, "no cache", ["clip-0"], {}),
        outcomes=OUTCOMES_OF_TWO,
        counts=[(1, NUM_CLIPS // 4)] + [(0, NUM_CLIPS // 4)] * 3,
        labels=list(enumerate(CLASSES)),
        instances=[0, 1, 2],
        without_pictures="",
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    comparison = table(ROWS, "head-0 with a long name, streams both, small")
    path = tmp_path_factory.mktemp("page") / "index.html"
    sections = [
        Section(name="results", title="Results", tables=[results_table(comparison)]),
        Section(name="nothing", title="Nothing", text="Left out: for a reason."),
        Section(name="clips", title="Clips", gallery=gallery_of_many()),
    ]
    chapter = ChapterPage(
        ident="c1", title="Many", facts=[], answers=answers_of(comparison), pair=[], notes=[], sections=sections
    )
    path.write_text(render([chapter]), encoding="utf-8")
    return path


@pytest.mark.slow
def test_thirty_rows_need_no_scrolling_in_the_table_and_the_score_is_in_view_on_a_phone(
    page: Path, browser: Any
) -> None:
    open_page(browser, page, 1280)
    area = "const s = document.querySelector('#c1-results-table').parentElement; return "
    inner = browser.execute_script(
        area + "[s.scrollWidth - s.clientWidth, s.scrollHeight - s.clientHeight, s.querySelectorAll('tbody tr').length]"
    )
    assert inner[0] <= 0 and inner[1] <= 0 and inner[2] == 30 + 2
    open_page(browser, page, 390)
    ends = browser.execute_script(
        area + "[...s.querySelectorAll('td:nth-child(2)')].map(c => c.getBoundingClientRect().right)"
    )
    assert len(ends) == 30 and max(ends) <= 390


def test_each_protocol_is_a_block_that_sorts_by_itself_with_its_best_in_bold(page: Path, browser: Any) -> None:
    open_page(browser, page, 1280)
    read = """return [...document.querySelectorAll('#c1-results-table tbody')].map(b => [b.rows[0].textContent,
        [...b.rows].slice(1).map(r => +r.cells[1].dataset.value),
        [...b.querySelectorAll('strong')].map(s => s.textContent)])"""
    browser.find_elements("css selector", "#c1-results-table thead button")[1].click()
    browser.find_elements("css selector", "#c1-results-table thead button")[1].click()
    blocks = browser.execute_script(read)
    assert [name for name, _, _ in blocks] == ["compositional", "standard"]
    for _, values, bold in blocks:
        assert values == sorted(values, reverse=True) and len(values) == 15 and bold == ["44.0"]


def test_answer_comes_first_and_what_is_left_out_last(page: Path, browser: Any) -> None:
    open_page(browser, page, 1280)
    order = browser.execute_script("return [...document.querySelectorAll('.answer, section')].map(e => e.id)")
    assert order == ["", "", "c1-results", "c1-clips", "c1-left-out"]
    assert "for a reason" in browser.find_element("id", "c1-left-out").text


def test_ten_thousand_clips_are_all_found_a_page_of_cards_at_a_time(page: Path, browser: Any) -> None:
    open_page(browser, page, 1280)
    cards = "return [...document.querySelectorAll('.card')].map(c => c.dataset.clip)"
    assert browser.execute_script(cards) == [f"clip-{k}" for k in range(CARDS_A_PAGE)]
    browser.find_element("css selector", "select[name=class] option[value='7']").click()
    browser.find_element("css selector", "select[name=instances] option[value='1']").click()
    browser.find_elements("css selector", ".filters input[type=radio]")[4].click()
    found = [k for k in range(NUM_CLIPS) if (k % 50, k % 3, k % 4) == (7, 1, 3)]
    seen = browser.execute_script(cards)
    forward = browser.find_elements("css selector", ".pages button")[1]
    while forward.is_enabled():
        forward.click()
        seen += browser.execute_script(cards)
    assert seen == [f"clip-{k}" for k in found]
    assert browser.find_element("css selector", ".filters output").text == f"{len(found)} of {NUM_CLIPS} clips"


def test_figures_follow_the_dark_and_what_is_on_a_picture_stays(browser: Any, tmp_path: Path) -> None:
    with drawing_style():
        figure = Figure()
        axes = figure.subplots()
        axes.text(0.5, 0.5, "on a shade", color="#1a1a1a")
        axes.set_xlabel("axis")
        svg = svg_bytes(figure)
    path = tmp_path / "figure.svg"
    path.write_bytes(with_dark_mode(svg))
    read = "return [...document.querySelectorAll('text')].map(t => [t.textContent, getComputedStyle(t).fill])"
    seen = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(path.as_uri())
        seen[scheme] = dict(browser.execute_script(read))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    light = tuple(int(LIGHT_INK[k : k + 2], 16) for k in (1, 3, 5))
    assert seen["dark"]["axis"] == f"rgb{light}" and seen["light"]["axis"] == "rgb(0, 0, 0)"
    assert seen["dark"]["on a shade"] == seen["light"]["on a shade"] == "rgb(26, 26, 26)"


@pytest.mark.parametrize(("across", "inches"), [(False, COLUMN_INCH), (True, PAGE_INCH)])
def test_a_paper_figure_is_as_wide_as_its_column_and_readable(across: bool, inches: float) -> None:
    with drawing_style():
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot([1, 2], [3, 4], label="line")
        axes.set_xlabel("an axis")
        axes.set_title("a title", weight="bold")
        axes.legend()
        content = column_pdf(figure, across=across)
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content)
    assert box is not None and float(box[1]) == pytest.approx(72 * inches, abs=0.01)
    fonts = set(re.findall(rb"/BaseFont /[A-Z]{6}\+(\S+)", content))
    assert (
        fonts == {b"DejaVuSans", b"DejaVuSans-Bold"}
        and b"/Type3" not in content
        and axes.xaxis.label.get_fontsize() >= 7
    )


def test_latex_has_a_label_a_short_caption_blocks_and_the_best_in_bold() -> None:
    text = latex(table([row("a_1", [0.5]), row("b", [0.6]), row("a_1", [0.4], protocol="five shot")], ""))
    assert r"\label{tab:t}" in text and r"\caption[T]{T. Test top-1 (\%) on toybox: 1 run, 95 \% interval" in text
    assert len(re.findall(r"\\textbf", text)) == 1 and r"b & \textbf{60.0} & " in text
    assert text.index(r"\emph{compositional}") < text.index(r"\emph{five shot}")


def test_groups_of_an_attribute_hold_every_clip_and_none_is_small() -> None:
    rng = np.random.default_rng(0)
    drawn = 0
    for _ in range(300):
        values = rng.geometric(rng.uniform(0.05, 0.9), rng.integers(1, 120)) - rng.integers(1, 3)
        found = make_attribute("x", "x", "x", "x", np.maximum(values, -1))
        known = values[values >= 0]
        cuts = [min((known <= top).sum(), (known > top).sum()) for top in np.unique(known)]
        few = np.unique(known).size <= MOST_VALUES  # of many values only thirds are tried
        assert (found is None) >= (max(cuts, default=0) < FEWEST_CLIPS)
        if found is None:
            assert not few or max(cuts, default=0) < FEWEST_CLIPS
            continue
        drawn += 1
        counts = np.bincount(found.groups[found.groups >= 0], minlength=len(found.labels))
        assert len(counts) >= 2 and counts.min() >= FEWEST_CLIPS and counts.sum() == len(known)
        for group, label in enumerate(found.labels):
            ends = [int(end) for end in label.split(" … ")]
            own = values[found.groups == group]
            assert (own.min(), own.max()) == (ends[0], ends[-1])
    assert drawn > 50
