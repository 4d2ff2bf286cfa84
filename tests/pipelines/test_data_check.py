"""`ifcar data check`: every planted fault is found, nothing else is, and the page shows it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fixtures.ava import write_ava
from fixtures.browser import open_page
from fixtures.charades import write_charades
from fixtures.epic_kitchens import write_epic
from fixtures.hockey import write_hockey
from fixtures.homage import write_homage
from fixtures.own_videos import write_own_videos
from fixtures.something_else import write_dataset
from fixtures.something_something import write_v1, write_v2
from fixtures.videos import write_frames, write_video
from fixtures.vlog import write_vlog
from fixtures.volleyball import write_volleyball

from ifcar.cli import main
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.decode import probe
from ifcar.extract.toybox.generate import generate_toybox
from ifcar.pipelines.data_check.catalog import CHECKS
from ifcar.pipelines.data_check.check import DataCheckResult, check_data
from ifcar.pipelines.data_check.config import DataCheckConfig
from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity
from ifcar.pipelines.data_check.examine import Examined
from ifcar.pipelines.data_check.tally import MOST_EXAMPLES, Tally, worst_clips
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.progress import Silent

Found = dict[str, dict[str, Severity]]


def check(root: Path, dataset: str = "something-else", *, workers: int = 0, **own: Any) -> DataCheckResult:
    config = ExtractConfig(dataset=dataset, data_root=root, workers=workers)
    return check_data(config, DataCheckConfig(**{"out": root.parent / "page.html", "drawn": 0, **own}), Silent())


def found_in(result: DataCheckResult) -> Found:
    """Check → clip → severity."""
    return {
        own.check: {result.clip_ids[number]: finding.severity for number, finding in own.examples}
        for own in result.found
        if own.examples
    }


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def move(records: list[dict[str, Any]], box: Callable[[int, list[float]], list[float]]) -> None:
    """Give every box of some records other corners, by its frame's place and its corners."""
    for place, record in enumerate(records):
        for label in record["labels"]:
            corners = [label["box2d"][name] for name in ("x1", "y1", "x2", "y2")]
            label["box2d"] = dict(zip(("x1", "y1", "x2", "y2"), box(place, corners), strict=True))


# On toybox


@pytest.fixture(scope="module")
def toybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toybox") / "data"
    generate_toybox(root, num_clips=54, workers=1)
    return root


@pytest.mark.slow
def test_a_clean_toybox_has_no_finding(toybox: Path) -> None:
    result = check(toybox)
    assert result.num_examined == 54 and found_in(result) == {} and result.num_wrong == 0


@pytest.mark.slow
def test_every_fault_planted_in_toybox_is_found_in_its_clip_and_no_other(toybox: Path, tmp_path: Path) -> None:
    root = shutil.copytree(toybox, tmp_path / "data")
    annotations = json.loads((root / "annotations.json").read_text())
    long = [clip for clip, records in annotations.items() if len(records) == int(records[-1]["name"][-8:-4])]
    clips = iter(sorted((clip for clip in long if len(annotations[clip]) >= 26), key=int))
    planted: Found = {}

    def plant(check: str, severity: Severity, clip: str | None = None) -> tuple[str, Path, list[dict[str, Any]]]:
        clip = next(clips) if clip is None else clip
        planted.setdefault(check, {})[clip] = severity
        return clip, root / "videos" / f"{clip}.webm", annotations[clip]

    _, video, _ = plant("unreadable", Severity.FAILS)
    video.write_bytes(b"no video" * 1000)
    _, video, _ = plant("empty-source", Severity.FAILS)
    video.write_bytes(b"")
    clip, _, records = plant("past-end", Severity.WRONG)
    records += [{**records[-1], "name": f"{clip}/{len(records) + k:04d}.jpg"} for k in range(1, 30)]
    _, _, records = plant("boxes-in-shares", Severity.WRONG)
    move(records, lambda _, box: [box[0] / 320, box[1] / 240, box[2] / 320, box[3] / 240])
    _, _, records = plant("outside-picture", Severity.WRONG)
    move(records, lambda _, box: [box[0] + 400, box[1], box[2] + 400, box[3]])
    _, _, records = plant("jumps", Severity.NOTE)
    for record in records:
        record["labels"] = record["labels"][:1] or [{"standard_category": "0000", "box2d": {}}]
    middle = len(records) // 2
    move(records, lambda place, _: [10, 10, 40, 40] if place < middle else [200, 150, 230, 180])
    _, _, records = plant("without-boxes", Severity.NOTE)
    for record in records:
        record["labels"] = []
    stated, _, _ = plant("stated-size", Severity.WRONG)
    edit(root / "videoid2size.json", lambda sizes: sizes.update({stated: [640, 480]}))
    clip, video, records = plant("frame-rate", Severity.WRONG)
    video.unlink()
    write_video(video, len(records), fps=6, size=(320, 240), codec="libvpx")
    plant("ends-early", Severity.NOTE, clip)  # as the annotations count at 12 a second
    clip, video, records = plant("missing-frames", Severity.FAILS)
    video.unlink()
    write_frames(root / "frames" / clip, len(records), "{:04d}.jpg", size=(320, 240))
    (root / "frames" / clip / "0004.jpg").unlink()
    clip, video, records = plant("ends-early", Severity.WRONG)
    video.unlink()
    write_frames(root / "frames" / clip, 2 * len(records), "{:04d}.jpg", size=(320, 240))
    first, again = doubled_pair(root, annotations, list(clips))
    shutil.copy(root / "videos" / f"{first}.webm", root / "videos" / f"{again}.webm")
    planted["doubled-source"] = {max(first, again, key=int): Severity.WRONG}
    (root / "annotations.json").write_text(json.dumps(annotations))

    result = check(root)
    assert found_in(result) == planted
    assert set(planted) == set(CHECKS.names()), "a fault for every check"
    assert result.num_wrong == 7


def doubled_pair(root: Path, annotations: dict[str, Any], clips: list[str]) -> tuple[str, str]:
    """A training and a test clip as long as each other."""
    parts = [
        {entry["id"] for entry in json.loads((root / "splits" / "compositional" / f"{part}.json").read_text())}
        for part in ("train", "validation")
    ]
    length = {clip: probe(root / "videos" / f"{clip}.webm").num_frames for clip in clips}
    return next((a, b) for a in clips for b in clips if a in parts[0] and b in parts[1] and length[a] == length[b])


# On the files of every adapter

ADAPTERS: dict[str, tuple[Callable[[Path], Path], int]] = {
    "ava": (write_ava, 0),
    "charades": (write_charades, 8),
    "epic-kitchens": (write_epic, 4),
    "folder": (write_own_videos, 8),
    "hockey": (write_hockey, 8),
    "homage": (partial(write_homage, layout=1), 1),
    "something-else": (write_dataset, 8),
    "something-something-v1": (write_v1, 0),
    "something-something-v2": (write_v2, 0),
    "vlog": (write_vlog, 8),
    "volleyball": (write_volleyball, 0),
}


def test_every_adapter_is_checked_and_says_its_errata() -> None:
    assert set(ADAPTERS) == {name for name in DATASETS.names() if not name.startswith("toybox")}
    for name in DATASETS.names():
        for erratum in DATASETS.get(name).errata:
            assert erratum.text.endswith(".") and "\n" not in erratum.text and erratum.source
    assert DATASETS.get("something-else").errata and not DATASETS.get("toybox").errata


@pytest.mark.slow
@pytest.mark.parametrize("dataset", sorted(ADAPTERS))
def test_the_files_of_an_adapter_have_nothing_but_what_they_were_made_with(dataset: str, tmp_path: Path) -> None:
    """Plain pictures, the same in many files; one clip of VLOG has no masks, half of hockey's no boxes."""
    write, num_clips = ADAPTERS[dataset]
    result = check(write(tmp_path / "data"), dataset)
    assert result.num_examined == result.num_clips >= max(1, num_clips)
    found = found_in(result)
    found.pop("doubled-source", None)
    without = {"charades": 1, "hockey": 4, "vlog": 1}.get(dataset, 0)
    assert len(found.pop("without-boxes", {})) == without
    assert found == {}
    page = (tmp_path / "page.html").read_text()
    for erratum in DATASETS.get(dataset).errata:
        assert erratum.source in page


# Single checks


def test_a_header_that_states_another_rate_than_the_time_stamps_is_noted(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 2)
    shutil.rmtree(root / "frames" / "100")
    path = root / "videos" / "100.webm"
    path.parent.mkdir()
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 12)
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 + number, np.uint8), "rgb24")
            frame.pts, frame.time_base = number, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    result = check(root)
    assert found_in(result) == {"frame-rate": {"100": Severity.NOTE}}
    assert result.found[0].examples[0][1].text == "the header states 30 a second, the time stamps 12"


def test_doubled_sources_outside_of_a_protocols_parts_are_a_note(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 4)
    shutil.rmtree(root / "frames" / "101")
    shutil.copytree(root / "frames" / "100", root / "frames" / "101")  # both are trained on
    assert found_in(check(root)) == {"doubled-source": {"101": Severity.NOTE}}
    shutil.rmtree(root / "frames" / "102")
    shutil.copytree(root / "frames" / "100", root / "frames" / "102")  # tested on
    assert found_in(check(root)) == {"doubled-source": {"101": Severity.NOTE, "102": Severity.WRONG}}


def test_a_box_much_larger_than_the_picture_is_found_and_one_that_leaves_it_is_not(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 3, pixels=False)
    wide = {"100": [2, 2, 2 + 1.6 * 64, 40], "101": [-20, 2, 1.4 * 64 - 20, 40], "102": [64 - 8, 2, 64 + 8, 40]}
    for clip, box in wide.items():
        edit(root / "annotations.json", lambda content, clip=clip, box=box: move(content[clip], lambda *_: box))
    result = check(root, annotations_only=True)
    assert found_in(result) == {"outside-picture": {"100": Severity.WRONG}}
    assert "22 of 22 boxes, 0 of them wholly, 22 much larger than it; frame 1" in result.found[0].examples[0][1].text


def test_without_pixels_what_concerns_them_is_not_looked_for(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 2, pixels=False)
    edit(root / "annotations.json", lambda content: move(content["100"], lambda _, box: [v + 500 for v in box]))
    result = check(root, annotations_only=True)
    assert found_in(result) == {"outside-picture": {"100": Severity.WRONG}}
    looked_for = {own.check for own in result.found}
    assert looked_for == {name for name in CHECKS.names() if not CHECKS.get(name).needs_pixels} < set(CHECKS.names())


def test_a_check_of_ones_own_is_a_class_and_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wide(Check):
        name, title, meaning, remedy = "wide", "Wide <pictures>", "They are wide.", "Cut them."

        def look(self, seen: Seen) -> Finding | None:
            assert seen.info is not None
            return Finding(text=f"{seen.info.width} pixels", severity=Severity.FAILS)

    monkeypatch.setitem(CHECKS._items, "wide", (Wide, __name__))
    result = check(write_dataset(tmp_path / "data", 2))
    assert found_in(result) == {"wide": {"100": Severity.FAILS, "101": Severity.FAILS}}
    assert "Wide &lt;pictures&gt;" in (tmp_path / "page.html").read_text() and result.num_wrong == 0


class Everything(Check):
    name = title = meaning = remedy = "everything"

    def look(self, seen: Seen) -> Finding | None:
        raise AssertionError


def test_a_tally_keeps_the_worst_of_any_number_of_clips() -> None:
    rng = np.random.default_rng(0)
    tally = Tally({"a": Everything(None), "b": Everything(None)})  # type: ignore[arg-type]
    findings: dict[str, list[tuple[int, Finding]]] = {"a": [], "b": []}
    for number in range(2000):
        own = {
            name: Finding(text=str(number), severity=Severity(int(rng.integers(1, 4))), amount=float(rng.integers(4)))
            for name in findings
            if rng.random() < 0.6
        }
        for name, finding in own.items():
            findings[name].append((number, finding))
        tally.add(
            Examined(
                number=number,
                findings=own,
                source=None,
                size=(64, 48 + number),
                fps=None,
                stated_fps=None,
                num_frames=2,
                num_annotated=1,
                num_tracks=3,
                num_boxes=5,
            )
        )
    assert (tally.num_clips, tally.num_boxes, tally.num_frames) == (2000, 10_000, 4000)
    assert sum(tally.kinds.values()) == 2000 and len(tally.kinds) <= 1001
    for own in tally.found():
        expected = sorted(findings[own.check], key=lambda item: (-item[1].severity, -item[1].amount, item[0]))
        assert list(own.examples) == expected[:MOST_EXAMPLES]
        assert own.counts == Counter(finding.severity for _, finding in expected)
    drawn = worst_clips(tally.found(), 7)
    firsts = [own.examples[place][0] for place in range(7) for own in tally.found()]
    assert drawn == list(dict.fromkeys(firsts))[:7]


# The command and its page


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", "--workers", "0", *arguments])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def test_exit_code_is_1_only_where_something_is_silently_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_dataset(tmp_path / "data", 4)
    page = tmp_path / "page.html"
    arguments = ["--dataset", "something-else", "--data-root", str(root), "--out", str(page)]
    code, out, _ = run([*arguments, "--json"], capsys)
    content = json.loads(out)
    assert code == 0 and content["silently_wrong"] is False and content["page"] == str(page)
    assert [content["clips"], content["examined"]] == [4, 4] and content["errata"]

    (root / "frames" / "101" / "0005.jpg").write_bytes(b"no picture")
    edit(root / "annotations.json", lambda c: [r.update(labels=[]) for r in c["102"]] and None)
    code, out, _ = run([*arguments, "--frames", "12"], capsys)
    assert code == 0 and "1 fails" in out and "1 note" in out
    assert "Nothing would be silently wrong; 2 checks have something to say" in out

    edit(root / "annotations.json", lambda c: move(c["103"], lambda _, box: [v / 100 for v in box]))
    code, out, _ = run([*arguments, "--json"], capsys)
    (wrong,) = (own for own in json.loads(out)["checks"] if own["clips"].get("silently wrong"))
    assert code == 1 and wrong["name"] == "boxes-in-shares" and wrong["examples"][0]["clip"] == "103"
    assert "1 check finds what extraction would get wrong without a word" in page.read_text()


def test_the_boxes_of_a_file_are_looked_at_as_extraction_would_see_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data set's own boxes are right; those of the file have three faults, and one subject of a class `fox`."""
    root, table = write_dataset(tmp_path / "data", 4), tmp_path / "boxes.csv"
    rows = {
        ("100", 1): "5,5,20,20",
        ("101", 1): "500,5,520,20",
        ("102", 1): "0.1,0.1,0.6,0.7",
        ("103", 900): "5,5,20,20",
    }
    lines = [f"{clip},{frame},fox,{box}" for (clip, frame), box in rows.items()]
    table.write_text("\n".join(["video,frame,label,x1,y1,x2,y2", *lines]) + "\n")
    arguments = [
        "--dataset",
        "something-else",
        "--data-root",
        str(root),
        "--out",
        str(tmp_path / "page.html"),
        "--json",
    ]
    assert run(arguments, capsys)[0] == 0
    code, out, _ = run([*arguments, "--boxes", str(table), "--subjects", "fox"], capsys)
    found = {own["name"]: [e["clip"] for e in own["examples"]] for own in json.loads(out)["checks"] if own["examples"]}
    assert code == 1
    assert found == {"outside-picture": ["101"], "boxes-in-shares": ["102"], "past-end": ["103"]}
    assert "boxes of the file count" in (tmp_path / "page.html").read_text()
    swapped = [f"{100 + clip},1,fox,20,20,5,5" for clip in range(4)]  # none of which is a box
    table.write_text("\n".join(["video,frame,label,x1,y1,x2,y2", *swapped]) + "\n")
    out = run([*arguments, "--boxes", str(table)], capsys)[1]
    found = {own["name"]: {e["clip"] for e in own["examples"]} for own in json.loads(out)["checks"] if own["examples"]}
    assert found == {"without-boxes": {"100", "101", "102", "103"}}
    code, _, err = run([*arguments, "--subjects", "fox"], capsys)
    assert code == 2 and "--subjects fox would be ignored" in err


def test_limit_and_sample_choose_what_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_dataset(tmp_path / "data", 8)
    edit(root / "annotations.json", lambda c: [r.update(labels=[]) for clip in c.values() for r in clip[1:]] and None)
    for clip in range(100, 108):
        edit(root / "annotations.json", lambda c, clip=str(clip): move(c[clip], lambda _, box: [v / 99 for v in box]))
    first = check(root, limit=3)
    assert first.num_examined == 3 and set(found_in(first)["boxes-in-shares"]) == {"100", "101", "102"}
    drawn = [set(found_in(check(root, sample=3, seed=seed))["boxes-in-shares"]) for seed in (0, 0, 1)]
    assert len(drawn[0]) == 3 and drawn[0] == drawn[1] != drawn[2]
    assert check(root, sample=3, limit=2).num_examined == 2


@pytest.mark.slow
def test_the_page_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 8)
    (root / "frames" / "101" / "0003.jpg").write_bytes(b"")
    pages = []
    for workers in (0, 2):
        check(root, workers=workers, drawn=3)
        pages.append((tmp_path / "page.html").read_bytes())
    assert pages[0] == pages[1]


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_dataset(tmp_path / "data", 2)
    arguments = ["--dataset", "something-else", "--data-root", str(root)]
    code, _, err = run([*arguments, "--out", str(tmp_path)], capsys)
    assert (code, err) == (2, f"ifcar: {tmp_path}: is a folder; name a file with --out\n")
    code, _, err = run([*arguments, "--sample", "0"], capsys)
    assert code == 2 and err.count("\n") == 1 and "--sample is 0" in err
    (root / "annotations.json").write_text("{")
    code, _, err = run(arguments, capsys)
    assert code == 2 and err.count("\n") == 1 and "annotations.json" in err


def test_only_an_older_page_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, table = write_dataset(tmp_path / "data", 2), tmp_path / "labels.csv"
    table.write_text("video,label,split\n")
    arguments = ["--dataset", "something-else", "--data-root", str(root), "--annotations-only", "--out"]
    code, _, err = run([*arguments, str(table)], capsys)
    assert code == 2 and table.read_text() == "video,label,split\n"
    assert err == f"ifcar: {table}: is there, and `ifcar data check` did not write it; name another --out\n"
    page = tmp_path / "page.html"
    assert [run([*arguments, str(page)], capsys)[0] for _ in range(2)] == [0, 0]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> DataCheckResult:
    root = write_dataset(tmp_path_factory.mktemp("faulty") / "data", 8)
    edit(root / "annotations.json", lambda c: move(c["103"], lambda _, box: [v + 70 for v in box]))
    for number in (2, 3):  # of which one is sampled
        (root / "frames" / "101" / f"{number:04d}.jpg").write_bytes(b"")
    return check(root, drawn=4)


def test_the_worst_clips_are_drawn_with_their_boxes_and_findings(faulty: DataCheckResult) -> None:
    page = faulty.page.read_text()
    worst = page[page.index('id="worst"') : page.index('id="random"')]
    assert [worst.count(f'data-clip="{clip}"') for clip in ("103", "101", "100")] == [1, 1, 0]
    assert "Boxes beyond the picture: 22 of 22 boxes, 22 of them wholly" in worst
    assert worst.count('<rect class="object"') >= 8 and worst.count("data:image/jpeg") >= 1
    assert page.count('class="card"') == 2 + 4


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_in_light_and_in_the_dark(
    faulty: DataCheckResult,
    browser: Any,
    width: int,
    scheme: str,
) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    open_page(browser, faulty.page, width)
    widths = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1] == width
    assert browser.get_log("browser") == []
    colours = browser.execute_script(
        "const of = e => getComputedStyle(document.querySelector(e));"
        "return [of('body').backgroundColor, of('h1').color].map(c => +c.match(/\\d+/)[0])"
    )
    assert (colours[0] > colours[1]) == (scheme == "light")
    pictures = browser.execute_script("return [...document.images].map(i => [i.alt, i.naturalWidth])")
    assert len(pictures) >= 5 and all(alt and width for alt, width in pictures)
