"""Diagnoses: each intervention against a literal loop, and whole diagnoses of small runs whose answers are known."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.something_else import NUM_FRAMES, box_at, write_dataset
from fixtures.volleyball import write_volleyball
from torch import Tensor

from ifcar.cache.arrays import ArraySpec, CacheSpec
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Category, Split
from ifcar.cli import main
from ifcar.errors import CacheMismatchError, InputError
from ifcar.extract.toybox.actions import ACTIONS
from ifcar.extract.toybox.annotations import annotation_records
from ifcar.extract.toybox.kinds import lay_out
from ifcar.extract.toybox.scene import HEIGHT, WIDTH
from ifcar.extract.toybox.splits import plan_clip, split_files
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.diagnosis.diagnose import DETECTED, DiagnosisResult, diagnose
from ifcar.pipelines.diagnosis.interventions import INTERVENTIONS
from ifcar.pipelines.diagnosis.pairs import compare_pairs, pairs_seen
from ifcar.pipelines.diagnosis.scene import Scene
from ifcar.pipelines.diagnosis.stage import Stage, average_of
from ifcar.pipelines.diagnosis.store import Diagnosis, DiagnosisRow, read_diagnosis
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.feed.batches import open_batches
from ifcar.pipelines.feed.examples import read_examples
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.report import report
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.runs.trained import open_trained
from ifcar.pipelines.scoring.scores import Predictions
from ifcar.testing.batches import FULL_SPEC, random_batch, spec_with

KNOWN = {intervention.name: intervention for intervention in INTERVENTIONS}
SHORT = ScheduleConfig(kind="stretched", min_steps=40, batch_size=8, refit=False)
BATCH, OTHER = random_batch(6, FULL_SPEC), random_batch(6, FULL_SPEC, seed=1)


def one_of(array: ArraySpec, spec: CacheSpec = FULL_SPEC) -> Tensor:
    """Stand for a training average: 1 everywhere, one value for all times and slots."""
    shared = {*array.time_axes, *(k for k, axis in enumerate(array.axes) if axis == "N")}
    return torch.ones(1, *(1 if k in shared else size for k, size in enumerate(spec.shape(array.name))))


def changed(name: str, places: Sequence[int] = range(6), batch: InstanceBatch = BATCH) -> dict[str, Tensor]:
    """Return the arrays that an intervention changes, changed."""
    own = KNOWN[name]
    touched = [array for array in FULL_SPEC.arrays if array.role != "bookkeeping" and own.touches(array, FULL_SPEC)]
    sizes = [FULL_SPEC.shape(array.name)[axis] for array in touched for axis in array.time_axes]
    scene = Scene(
        batch=batch,
        spec=FULL_SPEC,
        places=places,
        seed=3,
        windows=min(sizes),
        average=one_of,
        other=lambda: OTHER,
    )
    return {array.name: own.change(batch.array(array.name), array, scene) for array in touched}


def test_each_intervention_changes_what_its_name_says_and_nothing_else() -> None:
    features = {"instance_features", "frame_features", "grid_features"}
    expected = {
        "categories-swapped": {"categories"},
        "categories-hidden": {"categories", "object_classes"},
        "appearance-averaged": features,
        "appearance-of-another": features,
        "layout-averaged": {"boxes", "masks"},
        "layout-of-another": {"boxes", "masks"},
        "time-reversed": features | {"boxes", "categories", "masks", "object_classes"},
        "time-shuffled": features | {"boxes", "categories", "masks", "object_classes"},
        "boxes-jittered": {"boxes"},
    }
    found = {name: changed(name) for name in KNOWN}
    assert {name: set(arrays) for name, arrays in found.items()} == expected
    for name, arrays in found.items():
        for array, value in arrays.items():
            own = BATCH.array(array)
            assert value.shape == own.shape and value.dtype == own.dtype, (name, array)
            assert not torch.equal(value, own), (name, array)


def test_categories_are_exchanged_or_alike() -> None:
    own = BATCH.categories
    swapped, hidden = changed("categories-swapped")["categories"], changed("categories-hidden")
    assert torch.equal(swapped == Category.SUBJECT, own == Category.OBJECT)
    assert torch.equal(swapped == Category.OBJECT, own == Category.SUBJECT)
    assert torch.equal(hidden["categories"] == Category.OBJECT, own > 0)
    assert torch.equal(hidden["categories"] == Category.EMPTY, own == 0)
    assert bool((hidden["object_classes"] == -1).all())


def test_time_runs_backwards_in_features_and_layout() -> None:
    for name, value in changed("time-reversed").items():
        own, size = BATCH.array(name), value.shape[1]
        assert all(torch.equal(value[:, t], own[:, size - 1 - t]) for t in range(size)), name


def test_shuffled_features_stay_beside_their_boxes_and_no_clip_keeps_its_order() -> None:
    numbered = {
        name: torch.arange(value.shape[1]).to(value).view(1, -1, *(1,) * (value.ndim - 2)).expand(value.shape)
        for name, value in BATCH.arrays.items()
    }
    found = changed("time-shuffled", batch=InstanceBatch(numbered))
    orders = set()
    for clip in range(6):
        frames = found["boxes"][clip, :, 0, 0].tolist()
        steps = found["instance_features"][clip, :, 0, 0, 0, 0].tolist()
        assert sorted(frames) == list(range(8)) and sorted(steps) == list(range(4)) != steps
        assert frames == [2 * step + k for step in steps for k in range(2)]
        assert found["grid_features"][clip, :, 0, 0, 0].tolist() == steps
        orders.add(tuple(steps))
    assert len(orders) > 1


@pytest.mark.parametrize("name", ["time-shuffled", "boxes-jittered"])
def test_what_is_drawn_for_a_view_does_not_depend_on_its_batch(name: str) -> None:
    whole = changed(name)
    alone = changed(name, [4], InstanceBatch({key: value[4:5] for key, value in BATCH.arrays.items()}))
    for key, value in alone.items():
        assert torch.equal(value[0], whole[key][4])


def test_averages_fill_the_slots_that_hold_an_instance_only() -> None:
    features = changed("appearance-averaged")
    layout = changed("layout-averaged")
    steps = BATCH.categories[:, ::2] > 0
    assert torch.equal(
        features["instance_features"],
        torch.where(steps[..., None, None, None], 1.0, 0.0).expand_as(features["instance_features"]),
    )
    assert bool((features["frame_features"] == 1).all() and (features["grid_features"] == 1).all())
    assert torch.equal(layout["boxes"][..., 0], (BATCH.categories > 0).float())


def test_instances_take_another_clips_by_category_and_nearest_time() -> None:
    found = changed("layout-of-another")["boxes"]
    own_kinds, their_kinds = BATCH.categories, OTHER.categories
    for clip in range(6):
        theirs = [n for n in range(4) if their_kinds[clip, :, n].any()]
        taken: dict[int, int] = {}
        for n in range(4):
            if not own_kinds[clip, :, n].any():
                continue
            kind = int(own_kinds[clip, :, n].max())
            alike = [m for m in theirs if int(their_kinds[clip, :, m].max()) == kind]
            pool = alike or theirs
            taken[n] = pool[sum(int(own_kinds[clip, :, k].max()) == kind for k in taken) % len(pool)]
        for n in range(4):
            for t in range(8):
                if not own_kinds[clip, t, n]:
                    assert not found[clip, t, n].any()
                    continue
                there = [s for s in range(8) if their_kinds[clip, s, taken[n]]]
                near = min(there, key=lambda s: abs(s - t))
                assert torch.equal(found[clip, t, n], OTHER.boxes[clip, near, taken[n]])


def test_jittered_boxes_stay_near_theirs_and_inside_the_crop() -> None:
    found, held = changed("boxes-jittered")["boxes"], BATCH.categories > 0
    corners = torch.cat([found[..., :2] - found[..., 2:] / 2, found[..., :2] + found[..., 2:] / 2], dim=-1)
    assert not found[~held].any() and float(corners.min()) >= -1e-6 and float(corners.max()) <= 1 + 1e-6
    middle = torch.full((1, 8, 4, 4), 0.5)
    middle[..., 2:] = 0.2
    far = InstanceBatch({"boxes": middle.expand(6, 8, 4, 4), "categories": torch.ones(6, 8, 4, dtype=torch.uint8)})
    array = FULL_SPEC.array("boxes")
    scene = Scene(batch=far, spec=FULL_SPEC, places=range(6), seed=0, windows=8, average=one_of, other=lambda: OTHER)
    moved = KNOWN["boxes-jittered"].change(far.boxes, array, scene) - far.boxes
    assert 0.015 < float(moved[..., 0].std()) < 0.025 and 0.015 < float(moved[..., 2].std()) < 0.025


@pytest.mark.parametrize("head", HEADS.names())
def test_every_head_gives_finite_scores_under_every_intervention(head: str) -> None:
    kind = HEADS.get(head)
    config = kind.presets["small" if "small" in kind.presets else "paper"]
    spec = spec_with(kind.reads(config))
    spec = spec.resized(C=32) if spec.channels else spec
    torch.manual_seed(0)
    model = kind.build(config, spec, 5).eval()
    batch, other = random_batch(4, spec), random_batch(4, spec, seed=1)
    for own in INTERVENTIONS:
        touched = [array for name in kind.reads(config) if own.touches(array := spec.array(name), spec)]
        sizes = [spec.shape(array.name)[axis] for array in touched for axis in array.time_axes]
        scene = Scene(
            batch=batch,
            spec=spec,
            places=range(4),
            seed=0,
            windows=min(sizes, default=1),
            average=lambda array: one_of(array, spec),
            other=lambda: other,
        )
        assert touched or own.name != "time-reversed"
        arrays = {array.name: own.change(batch.array(array.name), array, scene) for array in touched}
        with torch.inference_mode():
            logits = model(InstanceBatch({**batch.arrays, **arrays})).logits
        assert bool(torch.isfinite(logits).all()), own.name


def test_a_pair_is_seen_where_training_shows_its_class_with_its_group() -> None:
    classes = ("a", "b", "c")
    targets = np.array(
        [[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]], np.int8
    )
    groups = np.array([0, 1, 0, 0, 0, 1, 1, -1], np.int32)
    split = np.array([1, 1, 2, 2, 2, 2, 2, 2], np.uint8)
    space = LabelSpace(kind="multi", classes=classes, targets=targets)
    protocol = ProtocolTable(
        name="p", spaces=(space,), split=split, groups=groups, group_names=("cup", "pen"), group_kind="object"
    )
    trained, tested = (examples_of(protocol, part) for part in (Split.TRAIN, Split.TEST))
    # cup with a alone was trained, pen with a and b; no label and no group say nothing
    assert pairs_seen(trained, tested, protocol).tolist() == [1, 0, 0, 1, -1, -1]


def test_seen_and_unseen_pairs_are_measured_apart() -> None:
    rng = np.random.default_rng(0)
    classes, n = ("a", "b"), 400
    targets, groups = rng.integers(0, 2, n).astype(np.int16), rng.integers(0, 4, n).astype(np.int32)
    split = np.where(np.arange(n) < 100, Split.TRAIN, Split.TEST).astype(np.uint8)
    groups[:100] = targets[:100]  # training shows a with group 0 and b with group 1
    space = LabelSpace(kind="single", classes=classes, targets=targets)
    names = ("cup", "pen", "box", "key")
    protocol = ProtocolTable(
        name="p", spaces=(space,), split=split, groups=groups, group_names=names, group_kind="object"
    )
    trained, tested = (examples_of(protocol, part) for part in (Split.TRAIN, Split.TEST))
    own, shown = targets[100:], groups[100:] == targets[100:]
    right = np.where(shown, True, rng.random(300) < 0.5)
    logits = np.stack([own == 0, own == 1], axis=1).astype(np.float32) * np.where(right, 1, -1)[:, None]
    scored = Predictions(split="test", clip_ids=tested.names, logits=logits, targets=tested.targets, kind=tested.kind)
    found, note = compare_pairs([scored], trained, tested, protocol)
    assert found is not None and not note and (found.num_seen, found.num_unseen) == (shown.sum(), (~shown).sum())
    assert found.seen == (1.0,) and found.unseen == (right[~shown].mean(),)
    assert found.difference == pytest.approx(found.unseen[0] - 1.0)
    half = 1.96 * np.sqrt(0.25 / (~shown).sum())
    assert found.difference_interval == pytest.approx((found.difference - half, found.difference + half), abs=0.01)


def examples_of(protocol: ProtocolTable, part: Split) -> Any:
    from ifcar.pipelines.feed.examples import make_examples
    from ifcar.pipelines.feed.labelled import read_labelled

    found = read_labelled(protocol, part, [str(k) for k in range(len(protocol.split))])
    rows = found.clips[:, None]
    one = np.ones_like(rows, np.bool_)
    return make_examples(
        "x", found, protocol, segments=found.clips, rows=rows, usable=one, plain=one, per_rate=one.astype(np.int64)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 clips of a hand and an object that moves left or right: boxes alone, annotated and of a file."""
    root = tmp_path_factory.mktemp("diagnosis")
    data = write_dataset(root / "d", num_clips=32, pixels=False)
    boxes = {
        str(100 + clip): {str(frame + 1): [[*box_at(clip, frame)], [2, 30, 14, 44]] for frame in range(NUM_FRAMES - 1)}
        for clip in range(32)
    }
    (root / "boxes.json").write_text(json.dumps(boxes))
    for out, given in (("own", None), ("detected", root / "boxes.json")):
        extract(
            ExtractConfig(
                dataset="something-else",
                data_root=data,
                out=root / f"{out}.zarr",
                backbone="none",
                workers=0,
                instances=3,
                boxes=given,
            ),
            Silent(),
        )
    return root


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[Run]:
    """Two seeds of one system."""
    config = make_run_config("base", folder / "own.zarr", streams="layout", preset="small", schedule=SHORT)
    return [fit(replace(config, seed=k), Silent(), out=folder / "runs" / f"seed{k}").run for k in range(2)]


@pytest.fixture(scope="module")
def result(folder: Path, runs: list[Run]) -> DiagnosisResult:
    return diagnose([runs[0].path], Silent(), all_seeds=True, detected=folder / "detected.zarr")


def row_of(diagnosis: Diagnosis, name: str) -> DiagnosisRow:
    return next(row for row in diagnosis.rows if row.name == name)


@pytest.mark.slow
def test_left_and_right_change_places_when_time_is_reversed_and_chance_is_left_without_layout(
    result: DiagnosisResult, runs: list[Run]
) -> None:
    found = result.diagnosis
    trained, reversed_, hidden = (row_of(found, n) for n in ("as trained", "time-reversed", "layout-averaged"))
    assert found.seeds == (0, 1) and found.n == 16 and not [n for n in found.notes if "stored" in n]
    assert trained.primary == tuple(run.metric("test").top1 for run in runs) == (1.0, 1.0)  # type: ignore[union-attr]
    assert reversed_.primary == (0.0, 0.0) and reversed_.against is not None and reversed_.against.difference == -1.0
    assert hidden.primary == (0.5, 0.5) and hidden.against is not None and hidden.against.high < 0
    assert found.class_changes(reversed_) == {"Moving something left": -1.0, "Moving something right": -1.0}
    assert (
        found.seen is None and "training does not show the class–object pairs of all 16 test clips" in found.notes[-1]
    )


def test_what_a_head_does_not_read_is_no_difference_of_zero(result: DiagnosisResult) -> None:
    for name in ("appearance-averaged", "appearance-of-another"):
        row = row_of(result.diagnosis, name)
        assert (row.state, row.arrays, row.primary, row.against) == ("not read", (), (), None)


def test_scores_of_detected_boxes_are_those_of_the_other_cache(
    result: DiagnosisResult, runs: list[Run], folder: Path
) -> None:
    row = row_of(result.diagnosis, DETECTED)
    trained = open_trained(runs[0].path)
    reader = open_cache(folder / "detected.zarr")
    tested = read_examples(reader, reader.protocol("compositional"), Split.TEST)
    batches = open_batches(reader, trained.arrays, [tested], "cpu", "ram")
    with torch.inference_mode():
        logits = trained.head.eval()(batches.batch(tested.rows[:, 0])).logits.numpy()
    assert row.state == "measured" and set(row.arrays) == {"boxes", "categories"}
    assert row.primary[0] == (logits.argmax(axis=1) == tested.targets).mean()


def test_a_diagnosis_is_the_same_again_and_its_files_say_the_same(
    result: DiagnosisResult, runs: list[Run], folder: Path, tmp_path: Path
) -> None:
    again = diagnose(
        [run.path for run in runs], Silent(), detected=folder / "detected.zarr", memory="stream", out=tmp_path
    )
    assert again.diagnosis == result.diagnosis == read_diagnosis(runs[0].path)
    assert (tmp_path / "diagnosis.csv").read_bytes() == (runs[0].path / "diagnosis.csv").read_bytes()
    with (tmp_path / "diagnosis.csv").open(newline="") as file:
        lines = {line["intervention"]: line for line in csv.DictReader(file)}
    assert float(lines["time-reversed"]["top1_seed1"]) == 0.0 and lines["appearance-averaged"]["difference"] == ""
    assert lines["appearance-averaged"]["state"] == "not read"


@pytest.mark.slow
def test_report_draws_a_diagnosis_where_there_is_one(result: DiagnosisResult, runs: list[Run], tmp_path: Path) -> None:
    written = report([run.path for run in runs], Silent(), ReportConfig(out=tmp_path / "r", num_clips=0))
    page = written.page.read_text()
    assert "what the heads go by" in page and "layout-of-another" in page
    with (tmp_path / "r" / "figures" / "shortcuts.csv").open(newline="") as file:
        drawn = [line for line in csv.DictReader(file) if line["intervention"] == "time-reversed"]
    assert [float(line["difference"]) for line in drawn] == [-1.0, -1.0] and [line["seed"] for line in drawn] == [
        "0",
        "1",
    ]
    assert (tmp_path / "r" / "figures" / "shortcuts-classes.png").is_file()


def command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["diagnose", *map(str, words)])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_command_prints_a_table_or_json_and_makes_what_is_named(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--only", "time-reversed", "--only", "appearance-averaged", "--out", tmp_path)
    code, out, _ = command(capsys, runs[0].path, *options)
    assert code == 0 and "time-reversed" in out and "not read" in out and "categories-swapped" not in out
    code, out, _ = command(capsys, runs[0].path, *options, "--json")
    assert code == 0 and [row["name"] for row in json.loads(out)["rows"]] == [
        "as trained",
        "appearance-averaged",
        "time-reversed",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "time-reverse"), "no intervention 'time-reverse', did you mean 'time-reversed'"),
        (("--only", "time-reversed", "--draw-seed", "1"), "--draw-seed would be ignored: nothing is drawn"),
        (("--detected", "own.zarr"), "the cache that the run was trained from"),
        (("runs/seed0",), "has the seed of"),
        (("runs/other",), "has another"),
        (("--cache", "detected.zarr"), "was trained from"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, runs: list[Run], capsys: pytest.CaptureFixture[str], words: Sequence[str], said: str
) -> None:
    if "runs/other" in words and not (folder / "runs/other").exists():
        config = make_run_config("stin", folder / "own.zarr", streams="layout", preset="small", schedule=SHORT)
        fit(replace(config, schedule=ScheduleConfig(kind="paper", epochs=1)), Silent(), out=folder / "runs" / "other")
    given = [folder / word if "/" in word or "." in word else word for word in words]
    code, _, err = command(capsys, runs[0].path, *given)
    assert code == 2 and said in err and err.count("\n") == 1


def test_a_cache_with_other_views_is_no_cache_of_detected_boxes(folder: Path, runs: list[Run]) -> None:
    other = folder / "frames4.zarr"
    extract(
        ExtractConfig(
            dataset="something-else",
            data_root=folder / "d",
            out=other,
            backbone="none",
            workers=0,
            instances=3,
            frames=4,
            boxes=folder / "boxes.json",
        ),
        Silent(),
    )
    with pytest.raises(CacheMismatchError, match="views differ in num_frames, 4 there and 8"):
        diagnose([runs[0].path], Silent(), detected=other)


def test_stand_ins_are_other_clips_and_averages_are_those_of_a_loop(folder: Path, runs: list[Run]) -> None:
    trained = open_trained(runs[0].path)
    reader, array = trained.reader, trained.reader.spec.array("boxes")
    batches = open_batches(reader, trained.arrays, [trained.tested], "cpu", "ram")
    stage = Stage(trained, batches, seed=5)
    clips = trained.tested.clips[stage.places]
    assert (clips[stage.donors] != clips).all() and sorted(stage.donors) == list(range(len(stage.rows)))
    rows = read_examples(reader, trained.protocol, Split.TRAIN).rows.ravel()
    boxes, held = reader.table("boxes")[rows], reader.table("categories")[rows] > 0
    np.testing.assert_allclose(average_of(array, reader, rows)[0, 0, 0], boxes[held].mean(axis=0), rtol=1e-5)
    assert torch.equal(stage.average(array), average_of(array, reader, rows))


@pytest.mark.slow
@pytest.mark.parametrize(("labels", "head"), [("personal", "stin"), ("actions", "stlt")])
def test_instances_several_labels_and_heads_that_do_not_stack_are_diagnosed(
    tmp_path: Path, labels: str, head: str
) -> None:
    cache = tmp_path / "boxes.zarr"
    root = write_volleyball(tmp_path / "d", pixels=False)
    options = ExtractConfig(dataset="volleyball", data_root=root, out=cache, backbone="none", instances=6, workers=0)
    extract(options, Silent())
    brief = ScheduleConfig(kind="stretched", epochs=4, batch_size=8)
    streams = "layout" if head == "stin" else None
    config = make_run_config(head, cache, labels=labels, streams=streams, preset="small", schedule=brief)
    runs = [fit(replace(config, seed=k), Silent(), out=tmp_path / f"run{k}").run for k in range(2)]
    found, run = diagnose([run.path for run in runs], Silent()).diagnosis, runs[0]
    assert found.n == len(run.predictions("test").clip_ids) and found.task.endswith(labels)
    assert found.metric == ("top1" if labels == "personal" else "map") and not [n for n in found.notes if "stored" in n]
    assert (
        row_of(found, "layout-averaged").state == "measured"
        and row_of(found, "appearance-averaged").state == "not read"
    )
    if labels == "personal":
        with pytest.raises(InputError, match="instances have the labels"):
            diagnose([run.path], Silent(), detected=cache)


@pytest.mark.slow
def test_on_toybox_position_classes_fall_without_layout_and_order_classes_in_reverse(tmp_path: Path) -> None:
    """Boxes of toybox's clips, which need no videos; all its classes of position come in pairs that are each other's
    reverse."""
    plans = [plan_clip(0, number) for number in range(324)]
    annotations = {p.video_id: annotation_records(lay_out(p, 0), p.video_id, 0, p.number) for p in plans}
    files = {"annotations.json": annotations, "videoid2size.json": {name: [WIDTH, HEIGHT] for name in annotations}}
    files |= {f"splits/{name}": content for name, content in split_files(plans, 0).items() if "comp" in name}
    for name, content in files.items():
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text(json.dumps(content))
    cache = tmp_path / "boxes.zarr"
    extract(
        ExtractConfig(dataset="something-else", data_root=tmp_path / "d", out=cache, backbone="none", workers=0),
        Silent(),
    )
    schedule = ScheduleConfig(kind="stretched", min_steps=400, refit=False)
    config = make_run_config("base", cache, streams="layout", preset="small", schedule=schedule)
    run = fit(config, Silent(), out=tmp_path / "run").run
    found = diagnose([run.path], Silent(), only=["layout-averaged", "layout-of-another", "time-reversed"]).diagnosis
    position = {action.name for action in ACTIONS if action.cue == "position"}
    before = dict(zip(found.classes, found.rows[0].class_scores, strict=True))
    assert np.mean([before[name] for name in position]) > 0.7
    for row in found.rows[1:]:
        changes = found.class_changes(row)
        assert row.against is not None and row.against.high < 0
        assert np.mean([changes[name] for name in position]) < -0.5, row.name
    assert found.seen is None
