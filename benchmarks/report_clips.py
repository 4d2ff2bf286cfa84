"""What the report's clip browser takes at 10,000 clips with boxes: bytes, and milliseconds in headless Chromium."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from selenium import webdriver

from ifcar.cache.schema import Category
from ifcar.pipelines.report.gallery import OUTCOMES_OF_TWO, Card, Gallery, Guess, Verdict
from ifcar.pipelines.report.page import ChapterPage, Section, render
from ifcar.pipelines.report.records import Told, records_of
from ifcar.pipelines.report.strips import CELL_WIDTH, lay_out

NUM_CLIPS, NUM_CLASSES, NUM_FRAMES, NUM_SLOTS, REPEATS = 10_000, 174, 8, 4, 5
LOAD = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
FILTER = """const form = document.querySelector('.filters'); const start = performance.now();
form.elements['class'].value = '7'; form.dispatchEvent(new Event('change')); document.body.offsetHeight;
return performance.now() - start"""
TURN = """const start = performance.now(); document.querySelectorAll('.pages button')[1].click();
document.body.offsetHeight; return performance.now() - start"""


def main() -> None:
    """Make a page of made-up clips, and time it."""
    content = render([_chapter()]).encode()
    print(f"page: {len(content) / 2**20:.1f} MiB")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "index.html"
        page.write_bytes(content)
        browser = _browser()
        times: dict[str, list[float]] = {"load": [], "turn": [], "filter": []}
        for _ in range(REPEATS):
            browser.get(page.as_uri())
            for name, script in zip(times, (LOAD, TURN, FILTER), strict=True):
                times[name].append(float(browser.execute_script(script)))
        browser.quit()
    for name, values in times.items():
        print(f"{name}: median {statistics.median(values):.0f} ms ({min(values):.0f} … {max(values):.0f})")


def _chapter() -> ChapterPage:
    rng = np.random.default_rng(0)
    classes = [f"class {k}" for k in range(NUM_CLASSES)]
    kinds = np.full((NUM_FRAMES, NUM_SLOTS), int(Category.OBJECT), np.uint8)
    ids = [f"clip-{k}" for k in range(NUM_CLIPS)]
    boxes = rng.uniform(0.2, 0.6, (NUM_CLIPS, NUM_FRAMES, NUM_SLOTS, 4)).astype(np.float32)
    strips = {
        name: lay_out(list(range(1, NUM_FRAMES + 1)), own, kinds, None, CELL_WIDTH)
        for name, own in zip(ids[1:], boxes[1:], strict=True)
    }
    told = [
        Told(
            clip_id=name,
            classes=[k % NUM_CLASSES],
            outcome=k % 4,
            instances=k % NUM_SLOTS,
            verdicts=[(True, [(3, 0.5), (4, 0.2), (5, 0.1)])] * 2,
        )
        for k, name in enumerate(ids)
    ]
    guesses = [Guess(number=0, name=classes[0], probability=0.5, right=True)]
    verdicts = [Verdict(letter=letter, system=letter, right=True, guesses=guesses) for letter in "AB"]
    gallery = Gallery(
        cards=[Card(clip_id=ids[0], label=classes[0], verdicts=verdicts, strip=None)],
        records=records_of(told, classes, "made up", ids[:1], strips),
        outcomes=OUTCOMES_OF_TWO,
        counts=[(1, NUM_CLIPS // 4)] + [(0, NUM_CLIPS // 4)] * 3,
        labels=list(enumerate(classes)),
        instances=list(range(NUM_SLOTS)),
        without_pictures="",
    )
    sections = [Section(name="clips", title="Clips", gallery=gallery)]
    return ChapterPage(ident="c1", title="Clips", facts=[], answers=[], pair=[], notes=[], sections=sections)


def _browser() -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "/usr/bin/chromium"
    for flag in ("headless=new", "no-sandbox", "disable-gpu"):
        options.add_argument(f"--{flag}")
    driver = shutil.which("chromedriver") or "/usr/bin/chromedriver"
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


if __name__ == "__main__":
    main()
