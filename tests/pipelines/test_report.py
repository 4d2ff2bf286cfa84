"""The report: its numbers against literal loops, its page in headless Chromium, and what it does without files."""

from __future__ import annotations

import base64
import csv
import itertools
import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from fixtures.browser import open_page, records
from fixtures.something_else import HEIGHT, NUM_FRAMES, WIDTH, label, record
from PIL import Image
from sklearn.metrics import confusion_matrix

from ifcar.cache.open import open_cache
from ifcar.cache.schema import Split
from ifcar.errors import InputError, MissingDataError
from ifcar.pipelines.comparison.results import Replicate, System, summarise
from ifcar.pipelines.comparison.store import Comparison, write_comparison
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.gallery import choose_clips
from ifcar.pipelines.report.gather import group_runs
from ifcar.pipelines.report.report import ReportResult, report
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.data import write_run_data
from ifcar.pipelines.runs.finished import Run, open_run, write_config, write_history, write_results
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.scoring.scores import Predictions, measure

pytestmark = pytest.mark.slow  # most share what takes seconds to make

CLASSES = (
    '<script>alert("1")</script>',
    "Moving \"quotes\" & 'ticks' $x^2$ 左へ",
    "</script><img src=x onerror=alert(2)>",
    "Plain \x1b class",
    "{{ 7 * 7 }}",
)
SYSTEMS = {"base <b>": 0.0, "SFI": 0.0, "SFI λ = 1": 1.0, "SFI λ = 5": 5.0}
A, B = "SFI λ = 1", "base <b>"
NUM_CLIPS, NUM_SHOWN, CARDS_A_PAGE = 60, 13, 24
FIGURES = (
    "accuracy",
    "lambda",
    "gains",
    "confusion-a",
    "confusion-b",
    "instances",
    "training-loss",
    "training-accuracy",
)


def accuracies(world: World, system: str) -> list[float]:
    """Return the share of right clips of each seed, by a loop."""
    clips = range(len(world.clip_ids))
    return [sum(world.right(system, seed, c) for c in clips) / len(clips) for seed in range(2)]


@dataclass(frozen=True, kw_only=True)
class World:
    """A small data set with hostile names, its runs, and the report about them."""

    cache: Path
    data: Path
    comparison: Path
    logits: dict[str, list[np.ndarray[Any, np.dtype[np.float32]]]]  # of every system, one (n, K) a seed
    clip_ids: list[str]
    targets: list[int]
    out: Path
    result: ReportResult

    def numbers(self, name: str) -> list[dict[str, str]]:
        with (self.out / "figures" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def right(self, system: str, seed: int, clip: int) -> bool:
        """Say by a loop whether a run scores the clip's own class above all others."""
        row = self.logits[system][seed][clip]
        return all(row[self.targets[clip]] > row[k] for k in range(len(CLASSES)) if k != self.targets[clip])

    def probabilities(self, system: str, clip: int) -> list[float]:
        """Return the mean over seeds of softmax, by hand."""
        total = [0.0] * len(CLASSES)
        for logits in self.logits[system]:
            exponentials = [float(np.exp(np.float64(v))) for v in logits[clip]]
            for k, e in enumerate(exponentials):
                total[k] += e / sum(exponentials) / len(self.logits[system])
        return total


def clip_name(clip: int) -> str:
    return (f"<i>{clip}", f'{clip}" onload="alert(3)', f"clip {clip} & ü", str(100 + clip))[clip % 4]


def write_hostile_dataset(root: Path) -> None:
    """Write frames, boxes and one protocol: one to three objects beside a hand, names that attack a page."""
    annotations, entries = {}, {"train": [], "validation": []}
    for clip in range(NUM_CLIPS):
        folder = root / "frames" / clip_name(clip)
        folder.mkdir(parents=True)
        records = []
        for frame in range(NUM_FRAMES):
            boxes = [(4.0 + 2 * frame + 9 * k, 5.0 + 8 * k, 14.0 + 2 * frame + 9 * k, 15.0 + 8 * k) for k in range(3)]
            objects = [label(f"{k:04d}", boxes[k]) for k in range(1 + clip % 3)]
            records.append(record(clip_name(clip), frame, [*objects, label("hand", (2, 30, 14, 44))]))
            Image.new("RGB", (WIDTH, HEIGHT), (40, 60 + frame, 3 * clip)).save(folder / f"{frame + 1:04d}.jpg")
        annotations[clip_name(clip)] = records
        entry = {"id": clip_name(clip), "template": CLASSES[clip % 5], "placeholders": [f"thing {clip}"], "label": "x"}
        entries["train" if clip % 2 else "validation"].append(entry)
    splits = root / "splits" / "compositional"
    splits.mkdir(parents=True)
    (root / "annotations.json").write_text(json.dumps(annotations))
    (root / "videoid2size.json").write_text(json.dumps({c: [WIDTH, HEIGHT] for c in annotations}))
    (splits / "labels.json").write_text(json.dumps({name: k for k, name in enumerate(CLASSES)}))
    for part, content in entries.items():
        (splits / f"{part}.json").write_text(json.dumps(content))


def fabricate(template: Run, path: Path, seed: int, weight: float, test: Predictions, head: str = "sfi") -> Run:
    """Write a run folder with a history and given test predictions."""
    path.mkdir(parents=True)
    assert isinstance(template.config, RunConfig)
    aux = {"prediction": weight} if weight else {}
    write_config(path, replace(template.config, head=head, aux_weights=aux, seed=seed))
    write_run_data(path, template.data())
    steps = range(10, 60, 10)
    losses = [
        {"classification_loss": 20 / s + seed + weight, "held_out_top1": s / 100, "held_out_loss": 1.0} for s in steps
    ]
    write_history(path, [{"phase": "fit", "epoch": 1, "step": s, **r} for s, r in zip(steps, losses, strict=True)])
    train = replace(template.predictions("train"))
    write_results(path, [train, test], [measure(p, seed=seed, started=0.0) for p in (train, test)])
    return open_run(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    place = tmp_path_factory.mktemp("report")
    write_hostile_dataset(place / "data")
    cache = place / "boxes.zarr"
    options = ExtractConfig(dataset="something-else", data_root=place / "data", out=cache, backbone="none", workers=0)
    extract(options, Silent())
    schedule = ScheduleConfig(kind="stretched", epochs=2, batch_size=8)
    config = make_run_config("sfi", cache, streams="layout", preset="small", schedule=schedule)
    trained = fit(config, Silent(), out=place / "runs" / "trained").run
    test = trained.predictions("test")
    rng = np.random.default_rng(0)
    logits: dict[str, list[Any]] = {}
    systems = []
    for name, weight in SYSTEMS.items():
        replicates = []
        for seed in range(2):
            own = rng.normal(size=test.logits.shape).astype(np.float32)
            own[np.arange(len(own)), test.targets] += 1.2
            logits.setdefault(name, []).append(own)
            path = place / "runs" / f"{re.sub('[^a-z0-9]', '', name.lower())}-{seed}"
            head = "base" if name == B else "sfi"
            run = fabricate(trained, path, seed, weight, replace(test, logits=own), head)
            replicates.append(Replicate(seed=seed, runs=[run]))
        factors = {"aux_weight": weight}
        systems.append(System(name=name, protocol="compositional", replicates=replicates, factors=factors))
    comparison = Comparison(
        name="weights",
        title="Weights & <em>measures</em>",
        dataset="something-else",
        baseline=B,
        paired_test="bootstrap",
        notes=("a <note>",),
        rows=tuple(summarise(systems, baseline=B)),
        cache=str(cache),
        fingerprint=open_cache(cache).fingerprint,
    )
    folder = place / "runs" / "weights"
    folder.mkdir()
    write_comparison(folder, comparison)
    out = place / "report"
    result = report(
        [folder], Silent(), ReportConfig(compare=A, baseline=B, out=out, num_clips=NUM_SHOWN, data_root=place / "data")
    )
    return World(
        cache=cache,
        data=place / "data",
        comparison=folder,
        logits=logits,
        clip_ids=test.clip_ids.tolist(),
        targets=test.targets.tolist(),
        out=out,
        result=result,
    )


@pytest.fixture(scope="module")
def without_pixels(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about the same runs where there are no videos."""
    place = tmp_path_factory.mktemp("without")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IFCAR_DATA", str(place))
        return report([world.comparison], Silent(), ReportConfig(out=place / "r", num_clips=3)).page


def test_every_figure_is_there_as_svg_png_and_csv(world: World) -> None:
    for name in FIGURES:
        for ending in ("svg", "png", "pdf", "csv"):
            assert (world.out / "figures" / f"{name}.{ending}").stat().st_size > 100, (name, ending)
        ElementTree.parse(world.out / "figures" / f"{name}.svg")
        with Image.open(world.out / "figures" / f"{name}.png") as picture:
            assert picture.width > 500
    assert world.result.page == world.out / "index.html"
    without_a_font = [note for note in world.result.notes if "へ" in note and "pictures show their codes" in note]
    assert list(world.result.notes) == without_a_font and len(without_a_font) <= 1
    assert world.result.size_bytes == world.result.page.stat().st_size < 2_000_000


def test_confusion_equals_scikit_learn(world: World) -> None:
    for letter, system in (("a", A), ("b", B)):
        predicted = [int(np.argmax(world.probabilities(system, c))) for c in range(len(world.clip_ids))]
        expected = confusion_matrix(world.targets, predicted, labels=range(len(CLASSES)))
        found = np.zeros_like(expected)
        for row in world.numbers(f"confusion-{letter}"):
            i, j = CLASSES.index(row["class"]), CLASSES.index(row["predicted"])
            found[i, j] = int(row["clips"])
            assert float(row["share_of_class"]) == pytest.approx(expected[i, j] / expected[i].sum())
        np.testing.assert_array_equal(found, expected)


def test_gains_equal_a_literal_loop(world: World) -> None:
    rows = world.numbers("gains")
    assert sorted(row["class"] for row in rows) == sorted(CLASSES)
    for row in rows:
        clips = [c for c, t in enumerate(world.targets) if CLASSES[t] == row["class"]]
        shares = {}
        for system in (A, B):
            right = sum(world.right(system, seed, c) for c in clips for seed in range(2))
            shares[system] = right / (2 * len(clips))
        assert int(row["n"]) == len(clips)
        assert float(row["top1_a"]) == pytest.approx(shares[A]) and float(row["top1_b"]) == pytest.approx(shares[B])
        assert float(row["difference"]) == pytest.approx(shares[A] - shares[B])
        assert float(row["difference_low"]) <= float(row["difference"]) <= float(row["difference_high"])
    differences = [float(row["difference"]) for row in rows]
    assert differences == sorted(differences, reverse=True)


def test_accuracy_by_number_of_instances_equals_a_literal_loop(world: World) -> None:
    reader = open_cache(world.cache)
    categories = reader.table("categories")
    number_of = {}
    for clip_id in world.clip_ids:
        row = reader.clip_ids.index(clip_id) * reader.num_views
        number_of[clip_id] = sum(any(categories[row, t, s] for t in range(8)) for s in range(4))
    rows = world.numbers("instances")
    assert {int(r["num_instances"]) for r in rows} == set(number_of.values()) == {2, 3, 4}
    assert {r["system"] for r in rows} == set(SYSTEMS)
    for row in rows:
        clips = [c for c, i in enumerate(world.clip_ids) if number_of[i] == int(row["num_instances"])]
        right = sum(world.right(row["system"], seed, c) for c in clips for seed in range(2))
        assert int(row["n"]) == len(clips) and float(row["top1"]) == pytest.approx(right / (2 * len(clips)))


def test_weight_curve_has_one_family_with_its_zero_and_its_spread(world: World) -> None:
    rows = world.numbers("lambda")
    assert [(r["system"], float(r["aux_weight"])) for r in rows[::2]] == [
        ("SFI", 0),
        ("SFI λ = 1", 1),
        ("SFI λ = 5", 5),
    ]
    for row in rows:
        shares = [
            np.mean([world.right(row["system"], seed, c) for c in range(len(world.clip_ids))]) for seed in range(2)
        ]
        assert float(row["top1_mean"]) == pytest.approx(np.mean(shares))
        assert float(row["top1_std"]) == pytest.approx(np.std(shares, ddof=1))
        assert float(row["top1"]) == pytest.approx(shares[int(row["seed"])])


def test_training_numbers_are_the_histories(world: World) -> None:
    rows = world.numbers("training-loss")
    assert len(rows) == len(SYSTEMS) * 2 * 5
    for row in rows:
        expected = 20 / int(row["step"]) + int(row["seed"]) + SYSTEMS[row["system"]]
        assert float(row["classification_loss"]) == pytest.approx(expected)


def test_same_inputs_give_the_same_bytes_and_old_figures_go(world: World, tmp_path: Path) -> None:
    out = tmp_path / "again"
    arguments: dict[str, Any] = {"compare": A, "baseline": B, "out": out, "data_root": world.data}
    report([world.comparison], Silent(), ReportConfig(num_clips=NUM_SHOWN, **arguments))
    for path in sorted(p for p in world.out.rglob("*") if p.is_file()):
        assert (out / path.relative_to(world.out)).read_bytes() == path.read_bytes(), path.name
    (out / "figures" / "mine.txt").write_text("kept")
    single = world.comparison.parent / "trained"
    report([single], Silent(), ReportConfig(out=out, num_clips=0, data_root=world.data))
    assert not (out / "figures" / "gains.svg").exists() and (out / "figures" / "mine.txt").exists()
    (out / "index.html").write_text("<title>mine</title>")
    with pytest.raises(InputError, match=r"index\.html: is there, and `ifcar report` did not write it; name another"):
        report([single], Silent(), ReportConfig(out=out, num_clips=0, data_root=world.data))
    assert (out / "index.html").read_text() == "<title>mine</title>"


def test_clips_are_shared_evenly_between_outcomes() -> None:
    outcomes = np.array([0] * 10 + [1] * 2 + [2] * 30 + [3] * 1)
    chosen = choose_clips(outcomes, np.zeros(43, np.int64), [f"{k:02d}" for k in range(43)], 13)
    assert np.bincount(outcomes[chosen]).tolist() == [5, 2, 5, 1] and len(set(chosen)) == 13
    assert [c for c in chosen if outcomes[c] == 0] == [1, 3, 5, 7, 9]
    assert len(choose_clips(outcomes, np.zeros(43, np.int64), ["x"] * 43, 100)) == 43


def test_report_works_without_its_cache(world: World, tmp_path: Path) -> None:
    result = report(
        [world.comparison],
        Silent(),
        ReportConfig(out=tmp_path / "r", cache=tmp_path / "gone.zarr", data_root=world.data),
    )
    page = result.page.read_text()
    assert any("there is no cache at" in note for note in result.notes)
    assert "Left out: the number of instances stands in the cache" in page and "No pictures:" in page
    assert not (tmp_path / "r" / "figures" / "instances.csv").exists()
    assert (tmp_path / "r" / "figures" / "gains.csv").exists() and page.count('<li class="card"') == 24


def test_cache_of_another_fingerprint_is_not_used(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other.zarr"
    options = ExtractConfig(
        dataset="something-else", data_root=world.data, out=other, backbone="none", workers=0, frames=4
    )
    extract(options, Silent())
    run = world.comparison.parent / "trained"
    result = report([run], Silent(), ReportConfig(out=tmp_path / "r", cache=other, num_clips=1, data_root=world.data))
    assert any("has the fingerprint" in note for note in result.notes)


def test_boxes_are_drawn_when_the_videos_are_gone(
    world: World, without_pixels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = without_pixels.read_text()
    assert "Boxes alone are drawn for all clips" in page and "image/jpeg" not in page
    assert page.count('class="strip"') == 3 and page.count('role="img"') == 3
    monkeypatch.setenv("IFCAR_DATA", str(tmp_path))
    changed = tmp_path / "something-else"
    shutil.copytree(world.data, changed)
    annotations = changed / "annotations.json"
    annotations.write_text(annotations.read_text() + " ")
    run = world.comparison.parent / "trained"
    again = report([run], Silent(), ReportConfig(out=tmp_path / "r", num_clips=3))
    assert any("other annotations" in note for note in again.notes)


def test_table_stays_when_runs_are_gone(world: World, tmp_path: Path) -> None:
    moved = tmp_path / "runs" / "weights"
    shutil.copytree(world.comparison, moved)
    content = json.loads((moved / "results.json").read_text())
    for row in content["rows"]:
        row["runs"] = [str(tmp_path / "runs" / Path(path).name) for path in row["runs"]]
    (moved / "results.json").write_text(json.dumps(content))
    page = report([moved], Silent(), ReportConfig(out=tmp_path / "r", num_clips=1)).page.read_text()
    assert page.count("is in the table only") == len(SYSTEMS) and "no run of this table is at hand" in page
    for path in world.comparison.parent.glob("sfi*-[01]"):
        shutil.copytree(path, tmp_path / "runs" / path.name)
    result = report([moved], Silent(), ReportConfig(out=tmp_path / "r", num_clips=1, data_root=world.data))
    best, following = sorted(
        (name for name in SYSTEMS if name != B), key=lambda name: -np.mean(accuracies(world, name))
    )[:2]
    assert result.pairs[0][1:] == (best, following)


def test_plain_runs_are_grouped_by_config_except_seed(world: World, tmp_path: Path) -> None:
    runs = sorted(p for p in world.comparison.parent.glob("*-[01]"))
    result = report(runs, Silent(), ReportConfig(out=tmp_path / "r", num_clips=2, data_root=world.data))
    with (tmp_path / "r" / "figures" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and {row["num_runs"] for row in rows} == {"2"}
    assert {float(row["aux_weight"]) for row in rows if row["head"] == "sfi"} == {0.0, 1.0, 5.0}
    assert (tmp_path / "r" / "figures" / "lambda.csv").exists() and len(result.pairs) == 1
    one = report(runs[:1], Silent(), ReportConfig(out=tmp_path / "one", data_root=world.data))
    page = one.page.read_text()
    assert "there is one system only" in page and "A is wrong" in page and one.pairs[0][2] == ""


def test_runs_of_one_name_say_in_what_they_differ(world: World, tmp_path: Path) -> None:
    first = next(p for p in sorted(world.comparison.parent.glob("*-[01]")) if open_run(p).config.head == "base")
    second = shutil.copytree(first, tmp_path / "second")
    config = yaml.safe_load((second / "config.yaml").read_text())
    config["schedule"]["label_smoothing"] = 0.1
    (second / "config.yaml").write_text(yaml.safe_dump(config))
    (_, other), notes = group_runs([open_run(first), open_run(second)])
    assert other.name.endswith(" (2)")
    assert notes == [f"{other.name} differs from {other.name[:-4]} in schedule.label_smoothing 0.1, not 0.0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compare": "SFI λ = 2"}, "--compare is 'SFI λ = 2': no such system, did you mean 'SFI λ ="),
        ({"baseline": "nothing like it"}, "--with is 'nothing like it': no such system. There are: "),
        ({"compare": "SFI", "baseline": "SFI"}, "name two systems"),
        ({"protocol": "compositionl"}, "did you mean 'compositional'"),
        ({"num_clips": -1}, "num_clips is -1; expected at least 0"),
        ({"data_root": Path("nowhere")}, "no such folder"),
        ({"folders": [Path("nowhere")]}, "name a run or a comparison"),
        ({"folders": []}, "ifcar grid"),
    ],
)
def test_bad_input_is_one_clear_line(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    with pytest.raises((InputError, MissingDataError), match=re.escape(message)) as caught:
        rest = {key: value for key, value in arguments.items() if key != "folders"}
        folders = arguments.get("folders", [world.comparison])
        report(folders, Silent(), ReportConfig(out=tmp_path / "r", **rest))
    assert "\n" not in str(caught.value)


def test_page_names_nothing_on_the_network(world: World) -> None:
    page = world.result.page.read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|href|srcset|action|poster)\s*=\s*["']([^"']*)""", page)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page
    for attack in ("<script>alert", "<img src=x", "<i>", "<em>", "<b>SFI", "<note>", '" onload='):
        assert attack not in page, attack


# In a browser


def shown_clips(browser: Any) -> list[str]:
    script = "return [...document.querySelectorAll('.card')].filter(c => c.offsetParent).map(c => c.dataset.clip)"
    return list(browser.execute_script(script))


def told_clips(world: World) -> list[str]:
    """Return the ids of all test clips in the order of the browser."""
    return [clip[0] for clip in records(world.result.page.read_text(encoding="utf-8"))["clips"]]


@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_and_asks_nothing_of_the_network(world: World, browser: Any, width: int) -> None:
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    open_page(browser, world.result.page, width)
    widths = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1] == width
    for details in browser.find_elements("tag name", "summary"):
        browser.execute_script("arguments[0].click()", details)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []
    from selenium.common.exceptions import NoAlertPresentException

    with pytest.raises(NoAlertPresentException):
        browser.switch_to.alert.accept()
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    urls = [p["request"]["url"] for p in sent if p["documentURL"].startswith("file:")]
    assert urls and all(url.startswith(("data:", world.out.as_uri())) for url in urls)


def test_every_picture_is_loaded_and_has_words(world: World, browser: Any) -> None:
    open_page(browser, world.result.page, 390)
    pictures = browser.execute_script("return [...document.images].map(i => [i.alt, i.naturalWidth])")
    assert len(pictures) == len(FIGURES) + CARDS_A_PAGE
    assert all(len(alt) > 20 and width > 0 for alt, width in pictures)
    levels = browser.execute_script("return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    for nothing in (
        ".scroll:not([tabindex='0'][role=region]:is([aria-label], [aria-labelledby]))",
        "table:not(:has(caption))",
        "th:not([scope])",
    ):
        assert not browser.find_elements("css selector", nothing), nothing
    doubles = "const ids = [...document.querySelectorAll('[id]')].map(e => e.id); return ids.length - new Set(ids).size"
    assert browser.execute_script(doubles) == 0
    landmarks = browser.execute_script(
        "return ['header', 'nav', 'main', 'footer'].map(n => !!document.querySelector(n))"
    )
    assert all(landmarks) and browser.execute_script("return document.documentElement.lang") == "en"


def test_names_from_data_are_shown_as_text(world: World, browser: Any) -> None:
    open_page(browser, world.result.page, 1280)
    kinds = browser.execute_script("return [...document.scripts].map(s => s.type)")
    assert kinds == ["application/json", ""]
    cells = browser.execute_script(
        "return [...document.querySelectorAll('#c1-gains-table tbody th')].map(c => c.textContent)"
    )
    assert sorted(" ".join(c.split()) for c in cells) == sorted(" ".join(c.split()) for c in CLASSES)
    assert browser.find_element("tag name", "h1").text == "Weights & <em>measures</em>"
    assert B in browser.find_element("css selector", "#c1-results-table").text


def test_filters_show_exactly_the_clips_they_name(world: World, browser: Any) -> None:
    open_page(browser, world.result.page, 1280)
    every = told_clips(world)
    assert sorted(every) == sorted(world.clip_ids) and shown_clips(browser) == every[:CARDS_A_PAGE]
    turn = browser.find_elements("css selector", ".pages button")
    assert [button.is_enabled() for button in turn] == [False, True]
    turn[1].click()
    assert shown_clips(browser) == every[CARDS_A_PAGE:]
    right: dict[str, dict[str, bool]] = {}
    for system in (A, B):
        own = [world.probabilities(system, c) for c in range(len(world.clip_ids))]
        right[system] = {
            world.clip_ids[c]: max(range(len(CLASSES)), key=p.__getitem__) == world.targets[c]
            for c, p in enumerate(own)
        }
    cases = {"A right, B wrong": (True, False), "B right, A wrong": (False, True), "both wrong": (False, False)}
    for text, wanted in cases.items():
        for name in browser.find_elements("css selector", ".filters fieldset label"):
            if name.text.startswith(text):
                name.click()
        expected = [c for c in every if (right[A][c], right[B][c]) == wanted]
        assert expected and shown_clips(browser) == expected[:CARDS_A_PAGE]
        status = browser.find_element("css selector", "output")
        assert status.text == f"{len(expected)} of {len(every)} clips"
        assert status.get_attribute("aria-live") == "polite"
    browser.find_element("css selector", ".filters fieldset label").click()
    target_of = dict(zip(world.clip_ids, world.targets, strict=True))
    number = target_of[every[0]]
    browser.find_element("css selector", f"select option[value='{number}']").click()
    assert shown_clips(browser) == [c for c in every if target_of[c] == number]
    browser.find_element("css selector", "select[name=class] option").click()
    counts = {clip_name(clip): 2 + clip % 3 for clip in range(NUM_CLIPS)}  # a hand and one to three objects
    browser.find_element("css selector", "select[name=instances] option[value='3']").click()
    assert shown_clips(browser) == [c for c in every if counts[c] == 3]


def test_gallery_shows_the_three_most_probable_classes(world: World, browser: Any) -> None:
    open_page(browser, world.result.page, 1280)
    script = """return [...document.querySelectorAll('.card')].map(card => [card.dataset.clip,
        card.querySelector('h4').textContent,
        [...card.querySelectorAll('.verdict')].map(v => [v.querySelector('.model .unseen').textContent,
            [...v.querySelectorAll('li')].map(g => [g.querySelector('.name').textContent,
                g.querySelector('.probability').textContent, g.querySelector('.unseen').textContent,
                getComputedStyle(g.querySelector('.name')).color])])])"""
    for clip_id, heading, verdicts in browser.execute_script(script):
        clip = world.clip_ids.index(clip_id)
        own = CLASSES[world.targets[clip]]
        assert heading == own
        for system, (said, guesses) in zip((A, B), verdicts, strict=True):
            probabilities = world.probabilities(system, clip)
            order = sorted(range(len(CLASSES)), key=lambda k: -probabilities[k])[:3]
            assert said == ("right" if CLASSES[order[0]] == own else "wrong")
            for k, (name, share, mark, colour) in zip(order, guesses, strict=True):
                assert name == CLASSES[k] and mark == ("right" if name == own else "wrong")
                assert float(share.removesuffix(" %")) == pytest.approx(100 * probabilities[k], abs=0.0501)
                red, green, _ = (int(v) for v in re.findall(r"\d+", colour)[:3])
                assert (green > red) == (mark == "right")


def test_keyboard_sorts_tables_and_moves_filters(world: World, browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(browser, world.result.page, 1280)
    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("class") == "skip"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "main"
    table = browser.find_element("id", "c1-gains-table")
    buttons = table.find_elements("css selector", "thead button")
    heading = table.find_elements("css selector", "thead th")[4]
    read = "return [...arguments[0].tBodies[0].rows].map(r => +r.cells[4].dataset.value)"
    for key, direction in ((Keys.ENTER, "ascending"), (Keys.SPACE, "descending")):
        buttons[4].send_keys(key)
        values = browser.execute_script(read, table)
        assert values == sorted(values, reverse=direction == "descending") and len(values) == len(CLASSES)
        assert heading.get_attribute("aria-sort") == direction
    assert len(set(values)) > 2
    buttons[0].send_keys(Keys.ENTER)
    assert heading.get_attribute("aria-sort") is None
    empty_last = browser.find_element("id", "c1-results-table").find_elements("css selector", "thead button")[4]
    for _ in range(2):
        empty_last.send_keys(Keys.ENTER)
        assert (
            browser.execute_script(
                "return document.querySelector('#c1-results-table tbody').lastElementChild.cells[0].textContent"
            )
            == B
        )
    radio = browser.find_element("css selector", ".filters input[type=radio]")
    radio.send_keys(Keys.ARROW_DOWN)
    chosen = browser.find_element("css selector", ".filters input[type=radio]:checked")
    assert chosen.get_attribute("value") == "0" and 0 < len(shown_clips(browser)) < CARDS_A_PAGE
    boxes = browser.find_element("css selector", "input[name=boxes]")
    boxes.send_keys(Keys.SPACE)
    group = browser.find_element("css selector", ".card:not([hidden]) .boxes")
    assert group.value_of_css_property("visibility") == "hidden"


def test_page_reads_whole_without_scripts(world: World, browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "quiet.html"
    text = world.result.page.read_text(encoding="utf-8")
    page.write_text(re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL), encoding="utf-8")
    open_page(browser, page, 390)
    assert len(shown_clips(browser)) == NUM_SHOWN
    assert not browser.find_element("css selector", ".filters").is_displayed()


def test_page_prints_on_few_sheets(world: World, browser: Any) -> None:
    open_page(browser, world.result.page, 1280)
    sheets = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", sheets)) <= 8


def test_downloads_hold_the_figures_numbers(world: World, browser: Any) -> None:
    open_page(browser, world.result.page, 1280)
    links = browser.execute_script(
        "return [...document.querySelectorAll('a[download]')].map(a => [a.download, a.href])"
    )
    assert {name for name, _ in links} == {f"{name}.csv" for name in FIGURES}
    for name, uri in links:
        content = base64.b64decode(uri.split("base64,")[1])
        assert content == (world.out / "figures" / name).read_bytes()


def test_box_drawings_are_described_where_there_are_no_frames(without_pixels: Path, browser: Any) -> None:
    open_page(browser, without_pixels, 390)
    words = browser.execute_script("return [...document.querySelectorAll('.strip svg')].map(s => s.ariaLabel)")
    assert len(words) == CARDS_A_PAGE and all("without pixels" in w for w in words)


def test_targets_of_the_fixture_are_the_test_clips(world: World) -> None:
    reader = open_cache(world.cache)
    assert len(reader.protocol("compositional").clips(Split.TEST)) == len(world.clip_ids) == NUM_CLIPS // 2
