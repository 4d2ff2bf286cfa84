"""The report of a protocol with several labels a clip: precision by class, company, what heads look at."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fixtures.browser import records
from sklearn.metrics import label_ranking_average_precision_score

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Category, Provenance, Split, Status
from ifcar.cache.writer import CacheWriter
from ifcar.pipelines.fit import fit
from ifcar.pipelines.labels.kinds import MultiLabel
from ifcar.pipelines.labels.mean_ap import clip_precisions
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.report.activity_figures import regions
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.graph_figures import chains
from ifcar.pipelines.report.report import report
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

pytestmark = pytest.mark.slow  # most share what takes seconds to make

CLASSES = ("opening", "closing", "holding", "pouring")
SPEC = CacheSpec.standard(num_frames=8, num_steps=4, num_instances=3, channels=8, pooled_size=1, grid_size=(3, 3))
NUM_CLIPS = 80


@dataclass(frozen=True, kw_only=True)
class World:
    """A cache of many labels, two trained runs, and the report about them."""

    runs: dict[str, Run]
    out: Path
    page: str

    def numbers(self, name: str) -> list[dict[str, str]]:
        with (self.out / "figures" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


def write_cache(path: Path) -> None:
    """Write random features that the labels move, two or three instances, views of 8 to 38 frames."""
    rng = np.random.default_rng(0)
    labels = (rng.random((NUM_CLIPS, len(CLASSES))) < 0.45).astype(np.uint8)
    labels[labels.sum(axis=1) == 0, 2] = 1
    table = ProtocolTable(
        name="many",
        spaces=(LabelSpace(kind="multi", classes=CLASSES, targets=labels),),
        split=np.where(np.arange(NUM_CLIPS) % 2, Split.TRAIN, Split.TEST).astype(np.uint8),
        groups=np.full(NUM_CLIPS, -1, np.int32),
    )
    writer = CacheWriter.create(
        path,
        spec=SPEC,
        provenance=Provenance(identity={"dataset": {"name": "several"}}, environment={}),
        clip_ids=[f"clip-{k}" for k in range(NUM_CLIPS)],
        num_views=1,
        protocols=[table],
    )
    for block in writer.pending_blocks():
        rows = np.asarray(writer.rows_of(block))
        arrays = SPEC.empty_rows(len(rows))
        arrays["status"][:] = Status.DONE
        arrays["boxes"][:] = [0.4, 0.4, 0.3, 0.3]
        arrays["boxes"][..., 0] += 0.1 * np.arange(3)
        arrays["categories"][:] = [Category.SUBJECT, Category.OBJECT, Category.OBJECT]
        arrays["categories"][rows % 3 == 0, :, 2] = Category.EMPTY
        arrays["boxes"][arrays["categories"] == Category.EMPTY] = 0
        arrays["frame_indices"][:] = np.arange(8) * (1 + rows % 5)[:, None]
        for name in ("instance_features", "frame_features", "grid_features"):
            arrays[name][:] = rng.random(arrays[name].shape)
        for k in range(len(CLASSES)):
            arrays["grid_features"][:, :, k, k % 3, k // 3] += 2 * labels[rows, k, None]
            arrays["frame_features"][:, :, k] += 2 * labels[rows, k, None]
        writer.write_block(block, arrays, {})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    place = tmp_path_factory.mktemp("labels")
    write_cache(place / "c.zarr")
    schedule = ScheduleConfig(kind="stretched", epochs=15, batch_size=8, refit=False)
    settings = {"strg": {}, "activity-specific": {"num_groups": 2}}
    runs = {}
    for head, changes in settings.items():
        config = make_run_config(head, place / "c.zarr", preset="small", settings=changes, schedule=schedule)
        runs[head] = fit(config, Silent(), out=place / "runs" / head).run
    out = place / "report"
    report(
        [run.path for run in runs.values()],
        Silent(),
        ReportConfig(compare="activity-specific, small", out=out, num_clips=8),
    )
    return World(runs=runs, out=out, page=(out / "index.html").read_text(encoding="utf-8"))


def precision_of_many(targets: np.ndarray, logits: np.ndarray) -> float:
    """Return the precision that the other clips have above each positive one, by a loop; see population_ap.py."""
    ranked = [int(targets[clip]) for clip in sorted(range(len(targets)), key=lambda clip: -logits[clip])]
    m, found = sum(ranked), []
    assert m > 1
    for rank, label in enumerate(ranked):
        if label:
            q = sum(ranked[:rank]) / rank if rank else (1 + ranked[1]) / 2
            found.append(m * q / (m - 1 + q))
    return sum(found) / m


def test_gains_are_differences_of_precision_among_endlessly_many_clips(world: World) -> None:
    a, b = (world.runs[head].predictions("test") for head in ("activity-specific", "strg"))
    rows = {row["class"]: row for row in world.numbers("gains")}
    assert set(rows) == {name for k, name in enumerate(CLASSES) if a.targets[:, k].any()}
    for k, name in enumerate(CLASSES):
        ours, other = (precision_of_many(p.targets[:, k], p.logits[:, k]) for p in (a, b))
        row = rows[name]
        assert float(row["ap_a"]) == pytest.approx(ours) and float(row["ap_b"]) == pytest.approx(other)
        assert float(row["difference"]) == pytest.approx(ours - other)
        assert float(row["difference_low"]) <= float(row["difference"]) <= float(row["difference_high"])
        assert int(row["n"]) == a.targets[:, k].sum()


def test_company_of_a_class_is_the_mean_number_of_other_labels(world: World) -> None:
    labels = world.runs["strg"].predictions("test").targets.astype(int)
    for row in world.numbers("company"):
        k = CLASSES.index(row["class"])
        others = [int(clip.sum()) - 1 for clip in labels if clip[k]]
        assert float(row["other_activities"]) == pytest.approx(sum(others) / len(others))


@pytest.mark.parametrize("name", ["activities", "instances", "frames"])
def test_attributes_group_every_test_clip_once_and_average_scikit_learns_ranking_precision(
    world: World, name: str
) -> None:
    test = world.runs["strg"].predictions("test")
    rows = [row for row in world.numbers(name) if row["system"] == "strg, small"]
    assert len(rows) > 1
    total = sum(int(row["n"]) * float(row["clip_ap"]) for row in rows)
    assert sum(int(row["n"]) for row in rows) == len(test.targets)
    expected = label_ranking_average_precision_score(test.targets, test.logits)
    assert total / len(test.targets) == pytest.approx(expected)


def test_per_clip_precision_is_scikit_learns_also_with_ties() -> None:
    rng = np.random.default_rng(1)
    labels, logits = rng.random((50, 6)) < 0.4, rng.integers(0, 4, (50, 6)).astype(np.float32)
    labels[labels.sum(axis=1) == 0, 0] = True
    found = clip_precisions(logits, labels)
    assert found.mean() == pytest.approx(label_ranking_average_precision_score(labels, logits))
    assert clip_precisions(logits[:1], np.zeros((1, 6))).tolist() == [0]


def test_a_clip_is_right_when_every_label_comes_before_all_other_classes() -> None:
    probabilities = np.array([[0.9, 0.8, 0.1], [0.9, 0.1, 0.8], [0.5, 0.5, 0.1], [0.9, 0.8, 0.7]])
    labels = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert MultiLabel().right(probabilities, labels).tolist() == [True, False, False, False]


def test_page_shows_clips_under_each_of_their_labels_and_says_what_it_leaves_out(world: World) -> None:
    labels = dict(zip(*_ids_and_labels(world), strict=True))
    cards = world.page.split('<li class="card"')[1:]
    assert len(cards) == 8
    for card in cards:
        clip_id = card.split('data-clip="')[1].split('"')[0]
        assert clip_id in labels
    told = {clip[0]: clip[1] for clip in records(world.page)["clips"]}
    assert told == {clip_id: np.flatnonzero(own).tolist() for clip_id, own in labels.items()}
    assert "a clip shows several classes, so that none of them is taken for another" in world.page
    assert "every label is more probable than all other classes" in world.page


def _ids_and_labels(world: World) -> tuple[list[str], np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    test = world.runs["strg"].predictions("test")
    return test.clip_ids.tolist(), test.targets


def test_maps_are_drawn_for_the_labels_of_clips_with_the_most(world: World) -> None:
    ids, labels = _ids_and_labels(world)
    for number in (1, 2):
        rows = world.numbers(f"activities-{number}")
        (clip_id,) = {row["clip"] for row in rows}
        own = labels[ids.index(clip_id)]
        assert own.sum() >= np.sort(labels.sum(axis=1))[-2]
        assert {row["activity"] for row in rows} == {CLASSES[k] for k in np.flatnonzero(own)[:3]}
        for activity in {row["activity"] for row in rows}:
            highest = [float(row["highest"]) for row in rows if row["activity"] == activity]
            assert max(highest) == pytest.approx(1) and len(highest) == SPEC.num_steps
            assert any(int(row["regions"]) for row in rows if row["activity"] == activity)


def test_neighbours_are_the_strongest_links_of_one_box(world: World) -> None:
    rows = world.numbers("neighbours-1")
    weights = [float(row["weight"]) for row in rows]
    assert len(rows) == 5 and weights == sorted(weights, reverse=True) and 0 < sum(weights) <= 1 + 1e-9
    assert all((row["step"], row["slot"]) != (row["query_step"], row["query_slot"]) for row in rows)


def test_chains_follow_the_strongest_link_and_give_each_box_to_one_chain() -> None:
    categories = np.array([[1, 2, 0], [1, 2, 2], [1, 0, 2]], np.uint8)
    links = np.zeros((2, 3, 3))
    links[0, 0, 0], links[0, 0, 1], links[0, 1, 1] = 0.6, 0.4, 1.0
    links[1, 0, 0], links[1, 1, 0], links[1, 2, 2] = 0.9, 1.0, 1.0
    assert chains(links, categories) == [[(0, 1), (1, 1), (2, 0)], [(0, 0), (1, 0)], [(1, 2), (2, 2)]]


def test_regions_are_boxes_around_what_is_above_the_threshold() -> None:
    values = np.zeros((64, 64))
    values[0:16, 32:48] = 1.0
    values[40:48, 8:12] = 0.6
    values[60, 60] = 0.5
    assert regions(values) == [(0.625, 0.125, 0.25, 0.25), (10 / 64, 44 / 64, 4 / 64, 8 / 64)]


def test_boxes_alone_are_drawn_from_a_cache_whose_dataset_is_unknown(world: World) -> None:
    assert open_cache(Path(world.runs["strg"].config.cache)).identity["dataset"]["name"] == "several"
    assert "No pictures" in world.page or "Boxes alone are drawn" in world.page
