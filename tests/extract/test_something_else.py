"""The Something-Else adapter on its real quirks: the shared samples where they are, and small files of our own."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from fixtures.something_else import label, record, write_dataset

from ifcar.cache.schema import Category, Split
from ifcar.errors import InputError, MissingDataError
from ifcar.extract.datasets.box_records import read_tracks
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.extract.datasets.splits import read_protocols, template_class


@pytest.fixture
def shared() -> Path:
    folder = os.environ.get("IFCAR_SHARED")
    if not folder:
        pytest.skip("IFCAR_SHARED is not set: the real samples lie there")
    return Path(folder) / "data"


def test_records_are_matched_by_name_not_by_position() -> None:
    records = [record("7", 5, [label("0000", (5, 0, 9, 4))]), record("7", 2, [label("0000", (2, 0, 6, 4))])]
    tracks = read_tracks(Path("a.json"), "7", records)
    assert tracks.frames.tolist() == [2, 5]
    assert tracks.at(np.array([5, 3, 2])).boxes[:, 0, 0].tolist()[::2] == [5.0, 2.0]
    assert np.isnan(tracks.at(np.array([3])).boxes).all()


def test_several_hands_become_linked_tracks() -> None:
    """Two hands cross the list order from frame to frame; each stays one track by overlap."""
    left, right = (0.0, 0.0, 10.0, 10.0), (40.0, 0.0, 50.0, 10.0)
    records = []
    for frame in range(6):
        a = tuple(v + frame for v in left)
        b = tuple(v - frame for v in right)
        hands = [label("hand", a), label("hand", b)]  # type: ignore[arg-type]
        records.append(record("7", frame, hands if frame % 2 else hands[::-1]))
    tracks = read_tracks(Path("a.json"), "7", records)
    assert tracks.categories.tolist() == [Category.SUBJECT, Category.SUBJECT]
    starts = sorted(tracks.boxes[:, m, 0].tolist() for m in range(2))
    assert starts == [[0, 1, 2, 3, 4, 5], [40, 39, 38, 37, 36, 35]]


def test_more_instances_than_slots_keeps_subjects_then_longest() -> None:
    records = []
    for frame in range(4):
        labels = [label("0000", (0, 0, 5, 5)), label("0002", (9, 9, 12, 12))]
        labels += [label("0001", (5, 5, 8, 8))] if frame < 2 else []
        labels += [label("hand", (20, 20, 30, 30))] if frame == 0 else []
        records.append(record("7", frame, labels))
    kept = read_tracks(Path("a.json"), "7", records).keep(3)
    assert kept.categories.tolist() == [Category.SUBJECT, Category.OBJECT, Category.OBJECT]
    assert kept.boxes[0, 1:, 0].tolist() == [0.0, 9.0]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"name": "8/0001.jpg", "labels": []}], "not '7/0001.jpg'"),
        ([{"name": "7/0000.jpg", "labels": []}], "not '7/0001.jpg'"),
        ([record("7", 0, []), record("7", 0, [])], "two records name the frame"),
        ([record("7", 0, [{"standard_category": "hand"}])], "lacks standard_category or box2d"),
        ([record("7", 0, [label("hand", (0, 0, float("nan"), 1))])], "not finite"),
        ("x", "expected a list of records"),
    ],
)
def test_broken_records_are_one_clear_line(records: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_tracks(Path("a.json"), "7", records)
    assert "\n" not in str(caught.value)


def test_unpaired_clips_are_listed_not_fatal(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d")
    (root / "frames" / "999").mkdir()
    content = json.loads((root / "annotations.json").read_text())
    content["555"] = content["100"][:0]
    content["556"] = [{"name": "556/0001.jpg", "labels": []}]
    (root / "annotations.json").write_text(json.dumps(content))
    listing = SomethingElse(root).listing(needs_pixels=True)
    assert len(listing.clips) == 8
    assert [p.split(":")[0] for p in listing.problems] == ["555", "556", "999"]


def test_annotations_in_parts_equal_one_file(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d")
    whole = SomethingElse(root)
    ids = [c.clip_id for c in whole.listing(needs_pixels=False).clips]
    content = json.loads((root / "annotations.json").read_text())
    (root / "annotations").mkdir()
    for part in range(2):
        chosen = {k: v for i, (k, v) in enumerate(content.items()) if i % 2 == part}
        (root / "annotations" / f"part{part}.json").write_text(json.dumps(chosen))
    (root / "annotations.json").unlink()
    parts = SomethingElse(root)
    assert [c.clip_id for c in parts.listing(needs_pixels=False).clips] == ids
    for clip_id in ids:
        np.testing.assert_array_equal(parts.tracks(clip_id).boxes, whole.tracks(clip_id).boxes)


def test_template_without_brackets_is_the_class() -> None:
    assert template_class("[Something] falling like a feather") == "Something falling like a feather"
    assert template_class("Putting [something] into [something]") == "Putting something into something"


def test_clip_in_both_splits_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d")
    folder = root / "splits" / "compositional"
    (folder / "validation.json").write_text((folder / "train.json").read_text())
    with pytest.raises(InputError, match="must not be in both"):
        read_protocols(root / "splits", ["100", "101"])


def test_missing_folder_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no such folder; put annotations\.json"):
        SomethingElse(tmp_path / "nothing").prepare()


def test_real_something_else_sample_reads_whole(shared: Path) -> None:
    dataset = SomethingElse(shared / "something-else")
    listing = dataset.listing(needs_pixels=True)
    assert len(listing.clips) == 10 and not listing.problems
    hammer = dataset.tracks("862")
    assert len(hammer.frames) == 47 and sorted(hammer.categories.tolist()) == [1, 2]
    assert np.isfinite(hammer.boxes[:, hammer.categories == 1, 0]).sum() == 33
    tables, notes = dataset.protocols([c.clip_id for c in listing.clips])
    by_name = {t.name: t for t in tables}
    assert len(by_name["compositional"].labels.classes) == 174
    assert len(by_name["fewshot-base"].labels.classes) == 88 and len(by_name["fewshot-5"].labels.classes) == 86
    assert (by_name["fewshot-base"].split == Split.TEST).sum() == 2
    assert any("compositional_oneobject: no test clips" in n for n in notes)


@pytest.mark.slow
def test_cad120_protocols_leave_one_group_out(shared: Path) -> None:
    dataset = SomethingElse(shared / "cad120pp")
    ids = [c.clip_id for c in dataset.listing(needs_pixels=False).clips]
    tables, notes = dataset.protocols(ids)
    assert len(ids) == 390 and len(tables) == 4 and not notes
    for table in tables:
        assert table.group_kind == "left-out group" and len(table.group_names) == 4
        tested = np.unique(table.groups[table.split == Split.TEST])
        assert len(tested) == 1 and tested[0] not in table.groups[table.split == Split.TRAIN]


@pytest.mark.slow
def test_annotations_are_streamed_with_bounded_memory(tmp_path: Path) -> None:
    """Reading ten times the clips costs less than a twentieth of what parsing the whole file would."""
    peaks = []
    for count in (40, 400):
        root = tmp_path / str(count)
        root.mkdir()
        boxes = {"x1": 1, "y1": 2, "x2": 30.5, "y2": 40}
        labels = [{"standard_category": "0000", "box2d": boxes}, {"standard_category": "hand", "box2d": boxes}]
        clips = {str(k): [{"name": f"{k}/{f + 1:04d}.jpg", "labels": labels} for f in range(20)] for k in range(count)}
        (root / "annotations.json").write_text(json.dumps(clips))
        (root / "videoid2size.json").write_text(json.dumps({clip: [64, 48] for clip in clips}))
        dataset = SomethingElse(root)
        tracemalloc.start()
        assert len(dataset.listing(needs_pixels=False).clips) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert dataset.tracks(str(count - 1)).boxes[3, 0].tolist() == [1, 2, 30.5, 40]
    parsed = 360 * 20 * 2 * 500  # bytes of python objects that the further clips' records would take
    assert peaks[1] - peaks[0] < parsed / 20


def test_truncated_annotations_name_file_and_place(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d", pixels=False)
    whole = (root / "annotations.json").read_text()
    for content, message in ((whole[:500], "not valid JSON before byte 500"), ("[]", "begins with '\\['")):
        (root / "annotations.json").write_text(content)
        with pytest.raises(InputError, match=message):
            SomethingElse(root).listing(needs_pixels=False)
