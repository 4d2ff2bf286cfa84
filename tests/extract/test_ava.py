"""AVA's files, read end to end: clips, boxes, labels, frame mAP and the file of detections."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.ava import ACTIONS, csv_line, rows_of, write_ava
from fixtures.videos import write_frames
from fixtures.weights import random_weights
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ifcar.cache.open import open_cache
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Category, Provenance, Split
from ifcar.cache.writer import CacheWriter
from ifcar.cli import main
from ifcar.errors import IfcarError, InputError, MissingDataError
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.datasets.ava import Ava
from ifcar.extract.datasets.key_frames import KeyFrameBox, parse_box
from ifcar.extract.decoded_views import ViewDataset
from ifcar.extract.views import ViewPolicy
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.feed.examples import read_examples
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.questions import EvaluateConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

LEFT, RIGHT, MIDDLE = "0.077,0.151,0.283,0.811", "0.5,0.1,0.75,0.9", "0.3,0.2,0.45,1.0"
SHORT = ScheduleConfig(kind="stretched", epochs=8, batch_size=8, refit=False)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The cache, and how many views went through the backbone for it."""
    root = write_ava(tmp_path_factory.mktemp("ava") / "data")
    (root / "videos" / "e5.mp4").rename(root / "videos" / "e5.mkv")
    out = root.parent / "c.zarr"
    config = ExtractConfig(
        dataset="ava",
        data_root=root,
        out=out,
        backbone="mobilenet_v2",
        weights=random_weights(out, "mobilenet_v2"),
        crop=32,
        workers=0,
    )
    views = 0

    def count(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal views
        views += len(inputs[0]) if isinstance(module, Backbone) else 0

    class Counting(Silent):
        def start(self, title: str, total: int, *, done: int = 0, after: int = 0) -> None:
            nonlocal views
            views = 0  # from here on; what random weights are set by went before

    hook = register_module_forward_pre_hook(count)
    result = extract(config, Counting())
    hook.remove()
    assert (result.num_clips, result.num_failed) == (11, 0)
    assert list(result.notes) == ["3 boxes of ava_val_v2.2.csv at excluded timestamps"]
    return out, views


@pytest.fixture(scope="module")
def cache(extracted: tuple[Path, int]) -> Path:
    return extracted[0]


@pytest.mark.slow
def test_backbone_runs_once_a_key_frame(extracted: tuple[Path, int]) -> None:
    cache, views = extracted
    reader = open_cache(cache)
    persons = reader.protocol("official").labels.instance_ids
    assert persons is not None and views == reader.num_clips == 11 and (persons != "").sum() == 27
    reader.close()


def test_clip_is_a_key_frame_whose_persons_are_held_around_it(cache: Path) -> None:
    reader = open_cache(cache)
    row = reader.clip_ids.index("e5,0004")
    # 64 of 30 frames a second around second 4: frames 88 … 151; the middles of eight segments of eight
    assert reader.table("frame_indices")[row].tolist() == [92, 100, 108, 116, 124, 132, 140, 148]
    boxes, categories = reader.table("boxes")[row], reader.table("categories")[row]
    # the persons in the order of the file: (cx, cy, w, h) of the corners
    expected = [[0.18, 0.481, 0.206, 0.66], [0.625, 0.5, 0.25, 0.8], [0.375, 0.6, 0.15, 0.8], [0, 0, 0, 0]]
    np.testing.assert_allclose(boxes, np.tile(expected, (8, 1, 1)), atol=1e-6)
    assert (categories == [Category.SUBJECT, Category.SUBJECT, Category.SUBJECT, Category.EMPTY]).all()
    reader.close()


def test_protocol_is_the_official_one(cache: Path) -> None:
    reader = open_cache(cache)
    table = reader.protocol("official")
    assert table.labels.kind == "multi" and table.labels.classes == ("4 dance", "12 stand", "80 watch (a person)")
    part = {clip_id.split(",")[0]: Split(split) for clip_id, split in zip(reader.clip_ids, table.split, strict=True)}
    assert part == dict.fromkeys(("-a1", "b_2", "c3", "d4"), Split.TRAIN) | dict.fromkeys(("e5", "f6"), Split.TEST)
    assert table.group_kind == "video" and len(table.group_names) == 6
    space = table.labels
    assert (space.name, space.over) == ("actions", "instance") and space.instance_ids is not None
    labels = dict(zip(space.instance_ids.ravel(), space.targets.reshape(-1, 3).tolist(), strict=True))
    assert labels[f"e5,0004,{RIGHT}"] == [0, 1, 1] and labels[f"e5,0004,{MIDDLE}"] == [0, 0, 0]
    assert len(labels) == 27 + 1 and labels[""] == [-1, -1, -1]
    assert "f6,0004" not in reader.clip_ids  # excluded
    reader.close()


def literal_frame_map(path: Path, true: list[Any]) -> float:
    """Score a file of detections by the annotated boxes, which are the same: each is right where its label says so."""
    with path.open() as file:
        rows = [(*row[:2], tuple(map(float, row[2:6])), int(row[6]), float(row[7])) for row in csv.reader(file)]
    precisions = []
    for action in ACTIONS:
        shown = {(video, f"{second:04d}", tuple(corners)) for video, second, *corners, a, _ in true if a == action}
        ranked = sorted((row for row in rows if row[3] == action), key=lambda row: -row[4])
        right = [row[:3] in shown for row in ranked]
        at = [sum(right[: r + 1]) / (r + 1) for r in range(len(right))]
        precisions += [sum(max(at[r:]) for r in range(len(right)) if right[r]) / len(shown)] if shown else []
    return float(np.mean(precisions))


@pytest.mark.slow
def test_evaluate_gives_frame_map_and_writes_detections(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    settings = {"num_observations": 4, "descriptor_dim": 32}
    config = make_run_config(
        "activity-specific", cache, protocol="official", preset="instances", settings=settings, schedule=SHORT
    )
    run = fit(config, Silent()).run
    path = tmp_path / "detections.csv"
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(run.path), "--detections", str(path)])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "frame AP" in printed and "test, n = 7: mAP" in printed
    lines = path.read_text().splitlines()
    assert len(lines) == 7 * 3 and lines[0].startswith(f"e5,0002,{LEFT},4,0.")
    true = [row for video in ("e5", "f6") for row in rows_of(video) if row[:2] != ("f6", 4)]
    expected = literal_frame_map(path, true)
    assert f"frame mAP at IoU 0.5, of the annotated boxes: {100 * expected:.1f}" in printed
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(run.path), "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["frame_map"] == pytest.approx(expected, abs=1e-4)
    assert {"class", "n", "ap", "frame_ap"} == record["classes"][0].keys()
    annotations = tmp_path / "annotations.csv"
    for file, before, code in ((path, path.read_bytes(), 0), (annotations, b"e5,0002,0,0,1,1,4,0\n", 2)):
        file.write_bytes(before)
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", str(run.path), "--detections", str(file)])
        assert (ended.value.code, file.read_bytes()) == (code, before)
    assert "annotations.csv is there and holds something else; name a new file" in capsys.readouterr().err


def one_row_a_person(cache: Path, out: Path) -> Path:
    """Write the cache as it was before key frames were clips: a row for each person.

    The person comes first and is the subject. All others are objects, the nearest first; labels are over clips.
    """
    reader = open_cache(cache)
    table = reader.protocol("official")
    ids = table.labels.instance_ids
    assert ids is not None
    persons = [(clip, slot) for clip, slot in np.argwhere(ids != "")]
    clips = [clip for clip, _ in persons]
    writer = CacheWriter.create(
        out,
        spec=reader.spec,
        provenance=Provenance(identity=reader.identity, environment=reader.environment),
        clip_ids=[ids[place] for place in persons],
        num_views=1,
        protocols=[
            replace(
                table,
                spaces=(
                    LabelSpace(
                        kind="multi",
                        classes=table.labels.classes,
                        targets=np.array([table.labels.targets[place] for place in persons], np.uint8),
                    ),
                ),
                split=table.split[clips],
                groups=table.groups[clips],
            )
        ],
    )
    rows = {name: reader.read_rows(name, np.array(clips)) for name in reader.spec.names()}
    for row, (_, slot) in enumerate(persons):
        centres = rows["boxes"][row, 0, :, :2].astype(np.float64)
        real = [n for n in range(len(centres)) if rows["categories"][row, 0, n]]
        others = sorted(set(real) - {slot}, key=lambda n: ((centres[n] - centres[slot]) ** 2).sum())
        order = [slot, *others, *(n for n in range(len(centres)) if n not in real)]
        for name in ("boxes", "categories", "instance_features"):
            rows[name][row] = rows[name][row][:, order]
        rows["categories"][row] = [Category.SUBJECT, *[Category.OBJECT] * len(others), *[0] * (4 - len(real))]
    writer.write_block(0, rows, {})
    reader.close()
    return out


@pytest.mark.slow
def test_one_row_a_key_frame_gives_the_numbers_of_one_row_a_person(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So caches of the former kind open, train and score, and frame mAP is the same to the last digit."""
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    found = []
    for path in (cache, one_row_a_person(cache, tmp_path / "persons.zarr")):
        brief = replace(SHORT, epochs=2)
        run = fit(make_run_config("sfi", path, protocol="official", preset="small", schedule=brief), Silent()).run
        detections = tmp_path / f"{path.stem}.csv"
        result = evaluate(run.path, EvaluateConfig(detections=detections))
        assert result.agrees
        found.append((result.frame_map, result.metrics.map, detections.read_text(), run.predictions("held_out").logits))
    for ours, before in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, before)


@pytest.mark.parametrize("slots", [1, 2])
def test_persons_of_a_crowded_key_frame_take_further_rows_and_none_is_lost(tmp_path: Path, slots: int) -> None:
    root, out = write_ava(tmp_path / "data", pixels=False), tmp_path / "c.zarr"
    config = ExtractConfig(dataset="ava", data_root=root, out=out, backbone="none", instances=slots, workers=0)
    notes = extract(config, Silent()).notes
    crowded = {1: 11, 2: 5}[slots]  # with two or three persons, of which two are not over 2
    (said,) = (note for note in notes if "persons, in " in note)
    assert said.startswith(f"{crowded} of 11 key frames have more than {slots} persons, in ")
    assert said.endswith("--instances 3 keeps each key frame in one")
    reader = open_cache(out)
    table = reader.protocol("official")
    parts = [read_examples(reader, table, split) for split in (Split.TRAIN, Split.TEST)]
    names = [name for part in parts for name in part.names.tolist()]
    assert len(names) == len(set(names)) == 27
    assert reader.num_clips == {1: 27, 2: 16}[slots]
    for part in parts:
        for place, name in enumerate(part.names):
            box = parse_box(name)
            assert box is not None
            row, slot = part.rows[place, 0], part.orders[place, 0]  # type: ignore[index]
            x1, y1, x2, y2 = box.corners
            expected = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
            np.testing.assert_allclose(reader.table("boxes")[row, 0, slot], expected, atol=1e-6)
            assert reader.clips.segments[part.clips[place]] == f"{box.video},{box.second:04d}"
    reader.close()


def test_boxes_of_a_file_have_none_of_the_labels(tmp_path: Path) -> None:
    root, boxes = write_ava(tmp_path / "data", pixels=False), tmp_path / "boxes.json"
    boxes.write_text("{}")
    config = ExtractConfig(dataset="ava", data_root=root, out=tmp_path / "c.zarr", backbone="none", boxes=boxes)
    with pytest.raises(InputError, match="ava has labels of its own boxes alone"):
        extract(config, Silent())


def test_boxes_need_no_videos(tmp_path: Path) -> None:
    root, out = write_ava(tmp_path / "data", pixels=False), tmp_path / "boxes.zarr"
    with pytest.raises(MissingDataError, match="no pixels; put AVA's videos there"):
        Ava(root).listing(needs_pixels=True)
    extract(ExtractConfig(dataset="ava", data_root=root, out=out, backbone="none", instances=1, workers=0), Silent())
    reader = open_cache(out)
    boxes = reader.table("boxes")[reader.clip_ids.index("b_2,0002")]
    np.testing.assert_allclose(boxes, np.tile([[0.18, 0.481, 0.206, 0.66]], (8, 1, 1)), atol=1e-6)
    reader.close()


def test_video_that_is_absent_or_broken_costs_its_own_clips(tmp_path: Path) -> None:
    root = write_ava(tmp_path / "data", pixels=False)
    for video in ("e5", "f6"):
        (root / "videos").mkdir(exist_ok=True)
        (root / "videos" / f"{video}.mp4").write_bytes(b"no video")
    dataset = Ava(root)
    listing = dataset.listing(needs_pixels=True)
    assert len(listing.clips) == 3
    assert "-a1: 5 boxes left out, no videos/-a1.mp4 or frames/-a1/" in listing.problems
    decoded = ViewDataset(listing.clips, dataset.tracks, dataset.annotation_fps, ViewPolicy(), reads="pixels")
    for row in range(3):
        assert decoded[row].view is None and "damaged or no video" in decoded[row].failure


@pytest.mark.parametrize("second", [2, 898, 899])
def test_key_frame_before_a_folder_of_frames_is_refused_by_video_and_second(tmp_path: Path, second: int) -> None:
    root = write_ava(tmp_path, pixels=False)
    (root / "ava_val_v2.2.csv").write_text(csv_line(("f6", second, 0.25, 0.5, 0.75, 1.0, 12, 0)))
    write_frames(root / "frames" / "f6", 3, "f6_{:06d}.jpg")
    with pytest.raises(InputError, match=rf"second {second} of video 'f6', but its folder .* begins at second 900"):
        Ava(root).listing(needs_pixels=True)


@pytest.mark.parametrize(("second", "num_cut"), [(900, 1), (901, 1), (902, 0)])
def test_clips_cut_at_the_beginning_of_their_source_are_noted(tmp_path: Path, second: int, num_cut: int) -> None:
    root = write_ava(tmp_path, pixels=False)
    (root / "ava_val_v2.2.csv").write_text(csv_line(("f6", second, 0.25, 0.5, 0.75, 1.0, 12, 0)))
    write_frames(root / "frames" / "f6", 3, "f6_{:06d}.jpg")
    notes = [n for n in Ava(root).listing(needs_pixels=True).notes if "1 clip begins before its source and is cut" in n]
    assert len(notes) == num_cut and all(f"the first: f6,0{second}" in note for note in notes)


def test_folder_of_frames_begins_at_second_900(tmp_path: Path) -> None:
    """Picture n of frames/VIDEO/ shows second 900 + (n − 1) / 30."""
    root = write_ava(tmp_path, pixels=False)
    rows = [csv_line(("f6", second, 0.25, 0.5, 0.75, 1.0, 12, 0)) for second in (902, 903)]
    (root / "ava_val_v2.2.csv").write_text("\n".join(rows))
    folder = root / "frames" / "f6"
    folder.mkdir(parents=True)
    for number in range(1, 131):
        Image.new("RGB", (64, 48)).save(folder / f"f6_{number:06d}.jpg")
    dataset = Ava(root)
    clips = dataset.listing(needs_pixels=True).clips
    decoded = ViewDataset(clips, dataset.tracks, dataset.annotation_fps, ViewPolicy(), reads="pixels")
    # second 902 is frame 60, from 0; frames 28 … 91 in eight segments. Around 903 only frames 58 … 121 of 130
    assert decoded.plan(0).frame_indices.tolist() == [32, 40, 48, 56, 64, 72, 80, 88]
    assert decoded.plan(1).frame_indices.tolist() == [62, 70, 78, 86, 94, 102, 110, 118]
    np.testing.assert_allclose(decoded.plan(1).boxes[:, 0], np.tile([0.5, 0.75, 0.5, 0.5], (8, 1)), atol=1e-6)


SHARES = st.floats(0, 1).map(lambda value: abs(round(value, 6)))


@given(st.text(min_size=1), st.integers(0, 99_999), st.tuples(SHARES, SHARES, SHARES, SHARES))
def test_clip_id_gives_the_box_again(video: str, second: int, corners: tuple[float, float, float, float]) -> None:
    box = KeyFrameBox(video=video, second=second, corners=corners)
    assert parse_box(box.name) == box


GOOD = csv_line(("a", 2, 0.1, 0.1, 0.5, 0.5, 12, 0))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ava_train_v2.2.csv", None, "no such file; expected AVA's boxes and actions"),
        ("ava_train_v2.2.csv", "a,0002,0.1,0.1,0.5,0.5,12", "line 1: 7 columns; expected 8: video_id, middle_frame_ti"),
        ("ava_train_v2.2.csv", f"{GOOD}\na,2.5,0.1,0.1,0.5,0.5,12,0", r"line 2: middle_frame_timestamp is '2\.5'"),
        ("ava_train_v2.2.csv", "a,123456,0.1,0.1,0.5,0.5,12,0", "is 123456; expected seconds, up to 99999"),
        ("ava_train_v2.2.csv", "../a,0002,0.1,0.1,0.5,0.5,12,0", r"video_id is '\.\./a'"),
        ("ava_train_v2.2.csv", "a,0002,0.1,0.1,1.5,0.5,12,0", r"x2 is 1\.5; expected 0 to 1"),
        ("ava_train_v2.2.csv", "a,0002,0.1,-0.1,0.5,0.5,12,0", r"y1 is -0\.1; expected 0 to 1"),
        ("ava_train_v2.2.csv", "a,0002,0.1,nan,0.5,0.5,12,0", "y1 is 'nan'; expected a finite number"),
        ("ava_train_v2.2.csv", "a,0002,0.1,0.1,0.5,wide,12,0", "y2 is 'wide'"),
        ("ava_train_v2.2.csv", "a,0002,0.1,0.1,0.5,0.5,81,0", "unknown action_id 81; expected 1 to 80"),
        ("ava_train_v2.2.csv", "a,0002,0.1,0.1,0.5,0.5,stand,0", "action_id is 'stand'"),
        ("ava_train_v2.2.csv", 'a,0002,"0.1', "no comma-separated row"),
        ("ava_train_v2.2.csv", "a,0002,\udce9", "line 1: not UTF-8 text"),
        ("ava_val_v2.2.csv", csv_line(("-a1", 2, 0.1, 0.1, 0.5, 0.5, 12, 0)), "'-a1' is also in the train part"),
        ("ava_val_excluded_timestamps_v2.2.csv", None, "no such file; expected AVA's excluded timestamps"),
        ("ava_val_excluded_timestamps_v2.2.csv", "f6", "line 1: 1 columns; expected 2"),
        ("ava_action_list_v2.2_for_activitynet_2019.pbtxt", None, "no such file; expected AVA's list"),
        ("ava_action_list_v2.2_for_activitynet_2019.pbtxt", "12: stand", "not a list of actions"),
        (
            "ava_action_list_v2.2_for_activitynet_2019.pbtxt",
            'item {\n name: "a"\n}',
            "item 1 has no single name and id",
        ),
        (
            "ava_action_list_v2.2_for_activitynet_2019.pbtxt",
            'item {\n name: "a"\n id: 81\n}',
            "has the id 81; expected",
        ),
        (
            "ava_action_list_v2.2_for_activitynet_2019.pbtxt",
            'item {\n name: "a"\n id: 1\n}\nitem {\n name: "b"\n id: 1\n}',
            "item 2 has the id 1; expected 1 to 80, each once",
        ),
    ],
)
def test_broken_file_is_refused_with_its_place(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    root = write_ava(tmp_path, pixels=False)
    if content is None:
        (root / name).unlink()
    else:
        (root / name).write_text(content, errors="surrogateescape")
    with pytest.raises(IfcarError, match=message) as caught:
        Ava(root).listing(needs_pixels=False)
    assert str(root / name) in str(caught.value) and "\n" not in str(caught.value)


def test_doubled_and_flat_rows_are_noted(tmp_path: Path) -> None:
    root = write_ava(tmp_path, pixels=False)
    rows = [GOOD, GOOD, csv_line(("a", 2, 0.1, 0.5, 0.5, 0.5, 12, 0))]
    (root / "ava_train_v2.2.csv").write_text("\n".join(rows))
    listing = Ava(root).listing(needs_pixels=False)
    assert listing.notes[:2] == [
        "1 row of ava_train_v2.2.csv is doubled, counts once",
        f"1 box without area is left out, the first: {root}/ava_train_v2.2.csv line 3: (0.1, 0.5, 0.5, 0.5)",
    ]
    assert next(clip.clip_id for clip in listing.clips) == "a,0002"


def test_missing_annotations_say_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="unpack the annotations of AVA"):
        Ava(tmp_path).prepare()


def test_detections_need_boxes_at_key_frames(tmp_path: Path) -> None:
    from ifcar.pipelines.labels.kinds import MultiLabel
    from ifcar.pipelines.scoring.detections import detect
    from ifcar.pipelines.scoring.scores import Predictions

    table = ProtocolTable(
        name="p",
        spaces=(LabelSpace(kind="multi", classes=("1 a",), targets=np.array([[1]], np.uint8)),),
        split=np.array([Split.TEST], np.uint8),
        groups=np.array([-1], np.int32),
    )
    for clip_id, expected in (("a,0002,0.1,0.1,0.5,0.5", True), ("a,0002", False)):
        predictions = Predictions(
            split="test",
            clip_ids=np.array([clip_id]),
            logits=np.zeros((1, 1), np.float32),
            targets=table.labels.targets,
            kind=MultiLabel(),
        )
        assert (detect(predictions, table, [clip_id]) is not None) is expected
