"""Hockey's layout, read end to end: clips of shared videos, several labels, boxes where there are some."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fixtures.hockey import CLASSES, clip_name, labels_of, write_hockey
from fixtures.weights import random_weights

from ifcar.cache.open import open_cache
from ifcar.cache.schema import Category, Split
from ifcar.cli import main
from ifcar.errors import IfcarError, MissingDataError
from ifcar.extract.datasets.hockey import Hockey
from ifcar.extract.datasets.text_rows import MAX_LINE_BYTES
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig


@pytest.mark.slow
def test_clips_go_from_files_to_a_scored_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Heads on the whole feature map need no boxes."""
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    root, out = write_hockey(tmp_path / "data"), tmp_path / "c.zarr"
    config = ExtractConfig(
        dataset="hockey",
        data_root=root,
        out=out,
        backbone="mobilenet_v2",
        weights=random_weights(out, "mobilenet_v2"),
        crop=32,
        grid=True,
        instances=2,
        workers=0,
    )
    result = extract(config, Silent())
    assert (result.num_clips, result.num_failed, result.notes) == (8, 0, [])
    reader = open_cache(out)
    with_boxes, without = (reader.clip_ids.index(clip_name("game2", clip)) for clip in (1, 3))
    # seconds 1.25 to 3.25 at 30 frames a second: frames 37 … 97, the middles of eight segments of them
    frames = reader.table("frame_indices")
    start, stop = 37, 98
    assert frames[with_boxes].tolist() == [int(start + (k + 0.5) * (stop - start) / 8) for k in range(8)]
    boxes, categories = reader.table("boxes"), reader.table("categories")
    # (8, 12, 24, 36) of 64 × 48: centre (16, 24), sides 16 and 24; frame 37 of the video has no record, 38 has one
    np.testing.assert_allclose(boxes[with_boxes, :, 0], np.tile([0.25, 0.5, 0.25, 0.5], (8, 1)), atol=1e-6)
    assert (categories[with_boxes, :, 0] == Category.SUBJECT).all()
    assert not boxes[without].any() and not categories[without].any()
    table = reader.protocol("official")
    assert table.labels.classes == CLASSES and table.labels.kind == "multi" and table.group_kind == "video"
    for number, clip_id in enumerate(reader.clip_ids):
        video, clip = clip_id.split("-")
        assert {CLASSES[k] for k in np.flatnonzero(table.labels.targets[number])} == set(labels_of(video, int(clip)))
        assert table.split[number] == (Split.TRAIN if video == "game1" else Split.TEST)
    reader.close()
    run = fit(
        make_run_config(
            "activity-specific",
            out,
            protocol="official",
            settings={"num_observations": 4, "descriptor_dim": 32},
            schedule=ScheduleConfig(kind="stretched", epochs=4, batch_size=4, refit=False),
        ),
        Silent(),
    ).run
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(run.path)])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "test, n = 4: mAP" in printed and "frame" not in printed
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(run.path), "--detections", str(tmp_path / "d.csv")])
    assert ended.value.code == 2 and not (tmp_path / "d.csv").exists()
    assert "not boxes at key frames" in capsys.readouterr().err


HEADER = "clip_id,video,start_sec,end_sec,split,labels"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("annotations.csv", None, "no such file; expected a header and rows of clip_id"),
        ("annotations.csv", "", "empty; expected a header with clip_id"),
        ("annotations.csv", HEADER.replace("split,", ""), "line 1: the header lacks the column split"),
        ("annotations.csv", HEADER + ",video", "line 1: the header names a column twice, video"),
        ("annotations.csv", f"{HEADER}\na,game1,0,2,train", "line 2: 5 columns; expected 6"),
        ("annotations.csv", f"{HEADER}\na,game1,0,two,train,check", "end_sec is 'two'; expected a finite number"),
        ("annotations.csv", f"{HEADER}\na,game1,inf,2,train,check", "start_sec is 'inf'"),
        ("annotations.csv", f"{HEADER}\na,game1,2,2,train,check", "from 2 to 2 s; expected 0 ≤ start < end"),
        ("annotations.csv", f"{HEADER}\na,game1,0,2,val,check", "split is 'val'; expected train, test, or nothing"),
        ("annotations.csv", f"{HEADER}\na,game1,0,2,train,chek", "classes.txt has no 'chek', did you mean 'check'"),
        (
            "annotations.csv",
            f"{HEADER}\na,game1,0,2,train,check\na,game2,0,2,test,check",
            "line 3: clip_id is 'a'; expected each id once",
        ),
        ("classes.txt", None, "no such file; expected a class a line"),
        ("classes.txt", "\n", "holds no class"),
        ("classes.txt", "check\nshot\ncheck\n", "names the class 'check' twice"),
        pytest.param("classes.txt", "c" * (MAX_LINE_BYTES + 1), "line 1: over 1,048,576 bytes", id="long line"),
        ("boxes.json", "[]", "begins with"),
        ("boxes.json", '{"game1-0": [{"name": "x"}]}', "record name 'x' is not 'game1-0/0001.jpg'"),
    ],
)
def test_broken_file_is_refused_with_its_place(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    root = write_hockey(tmp_path, pixels=False)
    (root / "videos").mkdir()
    if content is None:
        (root / name).unlink()
    else:
        (root / name).write_text(content)
    with pytest.raises(IfcarError, match=message) as caught:
        Hockey(root).listing(needs_pixels=True)
    assert str(root / name) in str(caught.value) and "\n" not in str(caught.value)


def test_clips_without_video_or_boxes_are_noted(tmp_path: Path) -> None:
    root = write_hockey(tmp_path)
    (root / "videos" / "game1.mp4").unlink()
    boxes = json.loads((root / "boxes.json").read_text())
    boxes["other"] = []
    (root / "boxes.json").write_text(json.dumps(boxes))
    pixels = Hockey(root).listing(needs_pixels=True)
    assert [clip.clip_id for clip in pixels.clips] == [clip_name("game2", clip) for clip in range(4)]
    assert pixels.notes[0] == "1 clip of boxes.json is not in annotations.csv"
    assert pixels.problems[0] == "game1-0: left out, there is no videos/game1.mp4"
    layout = Hockey(root).listing(needs_pixels=False)
    assert [(clip.clip_id, clip.frame_size) for clip in layout.clips] == [("game2-0", (64, 48)), ("game2-1", (64, 48))]
    assert "game2-2: left out, it has no boxes, and no pixels are read" in layout.problems
    (root / "videos" / "game2.mp4").write_bytes(b"no video")
    layout = Hockey(root).listing(needs_pixels=False)
    assert not layout.clips and any("game2-1: left out" in line and "damaged" in line for line in layout.problems)


def test_missing_folder_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no annotations\.csv; expected annotations\.csv"):
        Hockey(tmp_path).prepare()
