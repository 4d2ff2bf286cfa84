"""Charades' files with Action Genome's boxes, read end to end: annotated frames, boxes by hand, lists, bad input."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fixtures.charades import (
    CLASSES,
    NOT_ANNOTATED,
    TEST,
    TRAIN,
    WITHOUT_LABELS,
    action_genome,
    actions_of,
    write_boxes,
    write_charades,
)
from fixtures.videos import write_frames
from fixtures.weights import random_weights

from ifcar.cache.open import open_cache
from ifcar.cache.schema import Category, Split
from ifcar.cli import main
from ifcar.errors import IfcarError, MissingDataError
from ifcar.extract.datasets.charades import Charades
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.grid.config import SHIPPED
from ifcar.pipelines.progress import Silent

VIDEOS = TRAIN + TEST
SHOWN_FRAMES = [3, 9, 9, 18, 39, 40, 40, 76]
"""The middles of eight parts of the annotated frames 4, 10, 19, 40, 41 and 77, from 0."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_charades(tmp_path_factory.mktemp("charades") / "data")


@pytest.fixture(scope="module")
def cache(root: Path) -> Path:
    out = root.parent / "charades.zarr"
    config = ExtractConfig(
        dataset="charades",
        data_root=root,
        out=out,
        backbone="mobilenet_v2",
        weights=random_weights(out, "mobilenet_v2"),
        crop=32,
        workers=0,
    )
    result = extract(config, Silent())
    assert (result.num_clips, result.num_failed) == (len(VIDEOS), 0)
    assert result.notes == [
        "1 video is not annotated: no boxes, and in protocol official alone",
        "1 action ends before it begins; the class counts",
    ]
    return out


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.slow
def test_boxes_of_a_clip_are_those_of_its_annotated_frames(cache: Path) -> None:
    """Worked out by hand for TES0A, the sixth video; boxes are in frames of 128 × 96, the video has 64 × 48."""
    reader = open_cache(cache)
    row = reader.clip_ids.index("TES0A")
    assert reader.table("frame_indices")[row].tolist() == SHOWN_FRAMES
    boxes, categories = reader.table("boxes")[row], reader.table("categories")[row]
    person, second, book = boxes[:, 0], boxes[:, 1], boxes[:, 2]
    # x1, y1, x2, y2 = 8, 17, 40, 84; the third shown frame, number 19, has nobody
    expected = np.tile([24 / 128, 50.5 / 96, 32 / 128, 67 / 96], (8, 1))
    expected[3] = 0
    np.testing.assert_allclose(person, expected, atol=1e-6)
    # only frame 40 shows the second person, 80, 20, 120, 90, although the pickle names it first there
    np.testing.assert_allclose(second[4], [100 / 128, 55 / 96, 40 / 128, 70 / 96], atol=1e-6)
    assert not second[[0, 1, 2, 3, 5, 6, 7]].any()
    # x, y, w, h = 10 + k, 20, 30, 21 in frame k
    left = 10 + np.array(SHOWN_FRAMES) + 1
    expected = np.stack([(left + 15) / 128, np.full(8, 30.5 / 96), np.full(8, 30 / 128), np.full(8, 21 / 96)], axis=1)
    np.testing.assert_allclose(book, expected, atol=1e-6)
    assert not boxes[:, 3].any()  # the door is never visible
    subject, thing = Category.SUBJECT, Category.OBJECT
    assert categories[0].tolist() == [subject, 0, thing, 0] and categories[4].tolist() == [subject, subject, thing, 0]
    without = reader.clip_ids.index(NOT_ANNOTATED)
    assert not reader.table("boxes")[without].any()
    reader.close()


def test_protocols_are_the_official_split_and_its_annotated_part(cache: Path) -> None:
    reader = open_cache(cache)
    assert sorted(reader.protocol_names()) == ["action-genome", "official"]
    for name in reader.protocol_names():
        table = reader.protocol(name)
        assert table.labels.kind == "multi" and table.labels.classes == CLASSES and table.group_kind == "subject"
        for place, video in enumerate(reader.clip_ids):
            expected = Split.TRAIN if video in TRAIN else Split.TEST
            left_out = name == "action-genome" and video == NOT_ANNOTATED
            assert table.split[place] == (Split.NONE if left_out else expected)
            shown = set() if video == WITHOUT_LABELS else {k for k, _, _ in actions_of(VIDEOS.index(video))}
            assert set(np.flatnonzero(table.labels.targets[place])) == shown
            assert table.group_names[table.groups[place]] == video[:4]
    reader.close()


@pytest.mark.slow
def test_table_4_of_yan_et_al_runs_on_the_files(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped grid with one seed, small heads, two epochs; no published figures beside four classes."""
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    content = yaml.safe_load((SHIPPED / "charades-table4.yaml").read_text()) | {"extraction": {"sampling": "annotated"}}
    schedule = {"kind": "paper", "epochs": 2, "milestones": [1]}
    (tmp_path / "grid.yaml").write_text(
        yaml.safe_dump({**content, "seeds": [0], "preset": "small", "schedule": schedule})
    )
    assert command("grid", tmp_path / "grid.yaml", "--cache", cache) == 0
    printed = capsys.readouterr().out
    assert all(system["name"] in printed for system in content["systems"]) and "25.2" not in printed
    runs = sorted(path.parent for path in (tmp_path / "runs").rglob("metrics.json"))
    assert len(runs) == len(content["systems"])
    assert command("evaluate", runs[0]) == 0
    assert "test, n = 3: mAP" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("grid", "has", "needs"),
    [
        ("charades-table3", "8 annotated frames, no feature map", "--frames 32 --sampling-rates 4 --grid"),
        ("charades-table4", "8 annotated frames", "--frames 32"),
    ],
)
def test_shipped_grids_say_what_the_cache_has_in_place_of_the_papers_frames(
    cache: Path, capsys: pytest.CaptureFixture[str], grid: str, has: str, needs: str
) -> None:
    assert command("grid", grid, "--cache", cache) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert f"this cache has {has}; {grid} needs {needs}: make one with `ifcar extract --dataset charades" in printed


@pytest.mark.slow
def test_clips_of_five_seconds_go_through_the_whole_video(root: Path, tmp_path: Path) -> None:
    """32 frames at 6 a second in the paper; here 8 at 6 of a video of 90 at 30: every fifth, around the middle."""
    out = tmp_path / "c.zarr"
    config = ExtractConfig(
        dataset="charades",
        data_root=root,
        out=out,
        backbone="mobilenet_v2",
        weights=random_weights(out, "mobilenet_v2"),
        crop=32,
        workers=0,
        limit=1,
        sampling_fps=6.0,
    )
    assert extract(config, Silent()).num_failed == 0
    reader = open_cache(out)
    assert reader.table("frame_indices")[0].tolist() == list(range(25, 65, 5))
    reader.close()


def test_boxes_alone_need_no_videos(tmp_path: Path) -> None:
    out = tmp_path / "c.zarr"
    config = ExtractConfig(
        dataset="charades", data_root=write_charades(tmp_path / "d", pixels=False), out=out, backbone="none", workers=0
    )
    result = extract(config, Silent())
    assert result.num_clips == len(VIDEOS) - 1 and any(note.startswith(NOT_ANNOTATED) for note in result.notes)
    reader = open_cache(out)
    row = reader.clip_ids.index("TES0A")
    np.testing.assert_allclose(reader.table("boxes")[row, 0, 0], [24 / 128, 50.5 / 96, 32 / 128, 67 / 96], atol=1e-6)
    reader.close()


def test_frames_at_24_a_second_take_boxes_by_time(tmp_path: Path) -> None:
    root = write_charades(tmp_path, pixels=False)
    for video in ("TES0A", "TES0B"):
        write_frames(root / "Charades_v1_rgb" / video, 72, f"{video}-{{:06d}}.jpg", size=(32, 24))
    (root / "videoid2fps.json").write_text('{"TES0A": 30}')
    dataset = Charades(root)
    listing = dataset.listing(needs_pixels=True)
    assert [(clip.clip_id, clip.source_fps) for clip in listing.clips] == [("TES0A", 24.0)]
    assert any(line.startswith("TES0B: left out, its boxes count frames of TES0B.mp4") for line in listing.problems)
    tracks = dataset.tracks("TES0A")
    # frames 3, 9, 18, 39, 40 and 76 of 30 a second; boxes of 128 × 96 on frames of 32 × 24
    assert tracks.frames.tolist() == [2, 7, 14, 31, 32, 61]
    np.testing.assert_allclose(tracks.boxes[0, tracks.categories == Category.SUBJECT][0], [2, 4.25, 10, 21], rtol=1e-6)

    (root / "annotations").rename(root / "elsewhere")
    dataset = Charades(root)
    assert [clip.clip_id for clip in dataset.listing(needs_pixels=True).clips] == ["TES0A", "TES0B"]
    assert dataset.tracks("TES0A").boxes.shape == (0, 0, 4)
    tables, _ = dataset.protocols(["TES0A", "TES0B"])
    assert [table.name for table in tables] == ["official"]


def test_missing_files_are_named_with_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no Charades_v1_train\.csv; put"):
        Charades(tmp_path).prepare()
    data = write_charades(tmp_path / "d", pixels=False)
    with pytest.raises(MissingDataError, match=r"no pixels; put the 480p videos"):
        Charades(data).listing(needs_pixels=True)
    (data / "annotations" / "person_bbox.pkl").unlink()
    with pytest.raises(MissingDataError, match=r"person_bbox\.pkl: no such file"):
        Charades(data).listing(needs_pixels=False)


HEADER = "id,subject,actions"
NAME = "TRA0A.mp4/000004.png"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("Charades_v1_classes.txt", "c000\n", "line 1: 'c000' is not a code and a name"),
        ("Charades_v1_classes.txt", "c000 a\nc000 b\n", "line 2: the code c000 is listed twice"),
        ("Charades_v1_classes.txt", "c001 a\n", "1 classes whose codes are not c000 … c000"),
        ("Charades_v1_train.csv", "", "empty; expected a header with id, subject, actions"),
        ("Charades_v1_train.csv", "id,subject\n", "line 1: the header lacks the column actions"),
        ("Charades_v1_train.csv", f"{HEADER}\nA,S\n", "line 2: 2 columns; expected 3"),
        (
            "Charades_v1_train.csv",
            f"{HEADER}\nA,S,c009 0.0 1.0\n",
            "line 2: class 'c009' is not in Charades_v1_classes",
        ),
        ("Charades_v1_train.csv", f"{HEADER}\nA,S,c001 0.0\n", "line 2: action 'c001 0.0' is not a class, a start and"),
        ("Charades_v1_train.csv", f"{HEADER}\nA,S,c001 0.0 nan\n", "a time of c001 is 'nan'; expected a finite number"),
        ("Charades_v1_train.csv", f"{HEADER}\nA,S,c001 -1 2\n", "is at a negative time"),
        ("Charades_v1_train.csv", f"{HEADER}\nA,S,\nA,S,\n", "line 3: id 'A' is in the list twice"),
        ("Charades_v1_train.csv", f"{HEADER}\nTES0A,S,\n", "line 2: id 'TES0A' is in the train list too"),
        ("Charades_v1_train.csv", f"{HEADER}\n,S,\n", "line 2: id '' is empty"),
        ("videoid2fps.json", '{"TRA0A": 0}', "'TRA0A': 0; expected frames per second"),
    ],
)
def test_broken_list_is_refused_with_its_place(tmp_path: Path, name: str, content: str, message: str) -> None:
    root = write_charades(tmp_path, pixels=False)
    (root / name).write_text(content)
    with pytest.raises(IfcarError, match=message) as caught:
        Charades(root).listing(needs_pixels=False)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)


class Hostile:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch escaped",)


def spoilt(kind: str, **changes: object) -> Callable[[], tuple[object, object]]:
    """Return the two pickles with fields of one frame's person record, or of its first object, changed."""

    def build() -> tuple[object, object]:
        things, persons = action_genome()
        (persons[NAME] if kind == "person" else things[NAME][0]).update(changes)
        return things, persons

    return build


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: (Hostile(), {}), r"object_bbox_and_relationship.pkl: asks for 'posix.system'"),
        (lambda: ([], {}), "holds a list; expected"),
        (lambda: ({"TRA0A.mp4/4.txt": []}, {}), "frame name 'TRA0A.mp4/4.txt' is not 'ID.mp4/000001.png'"),
        (lambda: ({"TRA0A.mp4/000000.png": []}, {}), "is not 'ID.mp4/000001.png' or later"),
        (lambda: ({NAME: [], "TRA0A.mp4/4.png": []}, {}), "two names are of frame 4 of 'TRA0A'"),
        (lambda: ({NAME: {}}, {}), "a dict; expected a list of objects"),
        (lambda: ({NAME: [[]]}, {}), "an object without a text 'class'"),
        (lambda: ({}, {NAME: []}), "a list; expected a mapping with bbox"),
        (spoilt("person", bbox=np.zeros((1, 5), np.float32)), r"bbox is float32 \(1, 5\); expected an array"),
        (spoilt("person", bbox=np.full((1, 4), np.nan)), "box of 'person' is .*; expected four finite numbers"),
        (spoilt("person", bbox_mode="xywh"), "bbox_mode is 'xywh'; expected 'xyxy'"),
        (spoilt("person", bbox_size=(0, 96)), r"bbox_size is \(0, 96\); expected \(width, height\)"),
        (spoilt("person", bbox_size=(64, 48)), "expected one size in a video"),
        (spoilt("object", bbox=(1, 2, np.inf, 4)), "box of 'book' is .*; expected four finite numbers"),
        (spoilt("object", bbox=(1, 2, 3)), "expected four finite numbers"),
        (spoilt("object", bbox="1234"), "expected four finite numbers"),
        (spoilt("object", visible="yes"), "visible of 'book' is 'yes'; expected True or False"),
    ],
)
def test_broken_pickle_is_refused_with_its_frame(
    tmp_path: Path, build: Callable[[], tuple[object, object]], message: str
) -> None:
    root = write_charades(tmp_path, pixels=False)
    write_boxes(root, *build())
    with pytest.raises(IfcarError, match=message) as caught:
        Charades(root).listing(needs_pixels=False)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("escaped").exists()


def test_truncated_pickle_ends_the_command_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_charades(tmp_path / "d", pixels=False)
    path = root / "annotations" / "person_bbox.pkl"
    path.write_bytes(path.read_bytes()[:-500])
    arguments = ("--dataset", "charades", "--data-root", root, "--out", tmp_path / "c.zarr", "--backbone", "none")
    assert command("extract", *arguments, "--workers", "0") == 2
    error = capsys.readouterr().err
    assert "person_bbox.pkl: ends in the middle of a value" in error and error.count("\n") == 1


def test_boxes_without_area_are_left_out_and_counted(tmp_path: Path) -> None:
    root = write_charades(tmp_path, pixels=False)
    write_boxes(root, *spoilt("object", bbox=(5, 5, 0, 3))())
    dataset = Charades(root)
    listing = dataset.listing(needs_pixels=False)
    assert any(line.startswith("1 box without area is left out, the first: 'book'") for line in listing.notes)
    tracks = dataset.tracks("TRA0A")
    book = tracks.boxes[:, tracks.categories == Category.OBJECT]
    assert np.isnan(book[:, 0, 0]).tolist() == [True, False, False, False, False, False]
