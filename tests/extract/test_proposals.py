"""Boxes of a file in place of a dataset's: slots, scores, padding, what is refused, and the whole way to a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.something_else import HEIGHT, NUM_FRAMES, WIDTH, write_dataset
from fixtures.weights import random_weights

from ifcar.cache.open import open_cache
from ifcar.cli import main
from ifcar.errors import InputError
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.datasets.proposals import Proposals, read_proposals

IDS = [str(100 + clip) for clip in range(8)]
CLIPS = [Clip(clip_id=clip_id, source=None, frame_size=(WIDTH, HEIGHT)) for clip_id in IDS]
FRAMES = {"1": [[0, 0, 8, 8, 0.2], [8, 8, 24, 24, 0.9], [4, 4, 12, 12, 0.5]], "3": [[0, 0, 64, 48, 0.1]], "4": []}


def read(tmp_path: Path, content: Any, num_slots: int = 2) -> Proposals:
    path = tmp_path / "p.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_proposals(path, CLIPS, num_slots)


def write_npz(path: Path, boxes: dict[str, dict[str, list[list[float]]]], *, scored: bool) -> Path:
    """Write the arrays of boxes that are given as in the JSON form."""
    rows = [(clip, int(frame), box) for clip, by in boxes.items() for frame, listed in by.items() for box in listed]
    arrays = {
        "clip": np.array([clip for clip, _, _ in rows]),
        "frame": np.array([frame for _, frame, _ in rows]),
        "box": np.array([box[:4] for _, _, box in rows], np.float32),
    }
    np.savez(path, **arrays, **({"score": np.array([box[4] for _, _, box in rows])} if scored else {}))
    return path


def test_highest_scores_fill_the_slots_of_each_frame(tmp_path: Path) -> None:
    proposals = read(tmp_path, {"100": FRAMES})
    tracks = proposals.boxes("100")
    assert tracks.frames.tolist() == [0, 2]
    assert tracks.boxes[0].tolist() == [[8, 8, 24, 24], [4, 4, 12, 12]]
    assert tracks.boxes[1, 0].tolist() == [0, 0, 64, 48] and np.isnan(tracks.boxes[1, 1]).all()
    assert tracks.categories.tolist() == [2, 2] and proposals.filled == 3 / 4
    assert proposals.notes[0] == "1 of 2 frames has more than 2 boxes; the others are left out"
    assert "7 clips have no boxes in p.json, the first: 101" in proposals.notes
    assert not proposals.boxes("101").boxes.size


def test_without_scores_the_order_of_the_file_counts(tmp_path: Path) -> None:
    bare = {"1": [box[:4] for box in FRAMES["1"]]}
    assert read(tmp_path, {"100": bare}).boxes("100").boxes[0].tolist() == [[0, 0, 8, 8], [8, 8, 24, 24]]


@pytest.mark.parametrize("scored", [True, False])
def test_arrays_give_what_the_same_boxes_as_json_give(tmp_path: Path, scored: bool) -> None:
    rng = np.random.default_rng(0)
    boxes: dict[str, dict[str, list[list[float]]]] = {}
    for clip in ("103", "100", "999"):
        boxes[clip] = {}
        for frame in rng.permutation(9)[:6] + 1:
            low = rng.integers(0, 20, (int(rng.integers(1, 9)), 2))
            table = np.hstack([low, low + rng.integers(0, 20, low.shape), rng.integers(0, 5, (len(low), 1))])
            boxes[clip][str(frame)] = table[:, : 5 if scored else 4].astype(float).tolist()
    written = read(tmp_path, boxes, num_slots=5)
    path = write_npz(tmp_path / "p.npz", boxes, scored=scored)
    packed = read_proposals(path, CLIPS, 5)
    for clip in ("100", "103"):
        a, b = written.boxes(clip), packed.boxes(clip)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        assert a.frames.tolist() == b.frames.tolist() == sorted(int(frame) - 1 for frame in boxes[clip])
    notes = [[note.split(", the first: clip")[0] for note in part.notes] for part in (written, packed)]
    assert [note.replace("json", "npz") for note in notes[0]] == notes[1]
    assert "1 clip of p.npz is not extracted, the first: 999" in packed.notes
    assert packed.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected a JSON object"),
        ('{"100": {"1": [[0, 0, 8', "not valid JSON"),
        ('{"100": {"1": [[0, 0, NaN, 8]]}}', "not valid JSON"),
        ('{"100": {"1": [[0, 0, 1e400, 8]]}}', "not valid JSON"),
        ({"100": [[0, 0, 8, 8]]}, "expected {frame number: boxes}, found list"),
        ({"100": {"0": [[0, 0, 8, 8]]}}, "frame number '0'; expected whole numbers from 1"),
        ({"100": {"7": [[0, 0, 8, 8]], "07": [[0, 0, 8, 8]]}}, "frame number '07'"),
        ({"100": {"1.5": [[0, 0, 8, 8]]}}, "frame number '1.5'"),
        ({"100": {"1": 3}}, "box 3; expected numbers"),
        ({"100": {"1": [[0, 0, 8]]}}, "expected numbers"),
        ({"100": {"1": [[0, 0, 8, "8"]]}}, "expected numbers"),
        ({"100": {"1": [[0, 0, 8, True]]}}, "expected numbers"),
        ({"100": {"1": [[0, 0, 8, 8], [0, 0, 8, 8, 0.5]]}}, "score behind them in every box"),
        ({"100": {"1": [[0, 0, 8, 1e7]]}}, "not finite numbers"),
        ({"100": {"1": [[0, 0, 8, 10**400]]}}, "not valid JSON"),
        ({"100": {"1": [[0, 0, 8, 10**18]]}}, "not finite numbers"),
        ('{"100": {"1": []}, "100": {}}', "clip '100' is listed twice"),
        ({"7": {"1": [[0, 0, 8, 8]]}}, "boxes of none of the 8 clips; its first is '7', theirs '100'"),
        ({}, "boxes of none of the 8 clips"),
    ],
)
def test_file_that_cannot_be_used_is_one_line(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError) as found:
        read(tmp_path, content)
    text = str(found.value)
    assert message in text and "p.json" in text and "\n" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box": None}, "box.npy"),
        ({"box": np.zeros((2, 5))}, r"float64 \(2, 5\)"),
        ({"box": np.full((2, 4), np.nan)}, "clip '100', frame 1: box .*nan"),
        ({"score": np.array([1.0, np.inf])}, "clip '100', frame 2: box .*inf"),
        ({"score": np.zeros(3)}, r"float64 \(3,\)"),
        ({"frame": np.array([1.0, 2.0])}, "float64"),
        ({"frame": np.array([0, 1])}, "frame number 0; expected 1 to"),
        ({"clip": np.array([1, 2])}, "int64"),
        ({"clip": np.array(["100", 5], object)}, "expected clip"),
    ],
)
def test_arrays_that_cannot_be_used_are_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arrays = {"clip": np.array(["100"] * 2), "frame": np.array([1, 2]), "box": np.array([[0, 0, 8, 8.0]] * 2)} | changes
    np.savez(tmp_path / "p.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=message) as found:
        read_proposals(tmp_path / "p.npz", CLIPS, 2)
    assert "\n" not in str(found.value)


def test_inverted_boxes_are_left_out_and_boxes_beyond_the_frame_clipped(tmp_path: Path) -> None:
    proposals = read(tmp_path, {"100": {"1": [[9, 0, 4, 8], [0, 0, 4, 0], [-8, 40, 16, 90]]}}, num_slots=3)
    assert proposals.boxes("100").boxes.tolist() == [[[-8, 40, 16, 90]]]
    assert proposals.notes[0].startswith("2 boxes without area are left out, the first: clip '100', frame 1:")


@pytest.mark.slow
@pytest.mark.parametrize("per_frame", [10, 50])
def test_any_number_of_boxes_a_frame_goes_from_file_to_cache_and_run(
    tmp_path: Path, per_frame: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every sampled frame's slots hold the file's boxes of that frame, and the rest is empty; a head trains on them."""
    data, rng = write_dataset(tmp_path / "d", pixels=per_frame == 10), np.random.default_rng(per_frame)
    boxes: dict[str, dict[str, list[list[float]]]] = {}
    for clip in IDS[:-1]:
        boxes[clip] = {}
        for frame in range(1, NUM_FRAMES + 1):
            low = rng.uniform(0, 0.6, (per_frame - frame % 2, 2)) * [WIDTH, HEIGHT]
            size, score = rng.uniform(6, 18, low.shape), rng.permutation(len(low))[:, None] + 1.0
            boxes[clip][str(frame)] = np.hstack([low, low + size, score]).round(2).tolist()
    path = tmp_path / "p.json"
    path.write_text(json.dumps(boxes))
    backbone = (
        ["--weights", random_weights(data), "--crop", "32", "--pooled", "7-max"]
        if per_frame == 10
        else ["--backbone", "none"]
    )
    out, run = tmp_path / "c.zarr", tmp_path / "run"
    command = ["extract", "--dataset", "something-else", "--data-root", str(data), "--out", str(out), "--workers", "0"]
    run_command(*command, *backbone, "--boxes", str(path), "--instances", str(per_frame))
    printed = capsys.readouterr()
    filled = round(100 * (per_frame - 0.5) / per_frame)
    assert f"boxes fill {filled} % of {per_frame} slots a frame" in printed.err
    assert "1 clip has no boxes in p.json, the first: 107" in printed.out
    reader = open_cache(out)
    assert reader.identity["boxes"] == {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    for row, clip in enumerate(reader.clip_ids):
        seen, kinds = reader.table("boxes")[row], reader.table("categories")[row]
        for t, frame in enumerate(reader.table("frame_indices")[row]):
            listed = sorted(boxes.get(clip, {}).get(str(frame + 1), []), key=lambda box: -box[4])
            assert kinds[t].tolist() == [2] * len(listed) + [0] * (per_frame - len(listed))
            for slot, (x1, y1, x2, y2, _) in enumerate(listed):
                expected = [(x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT]
                np.testing.assert_allclose(seen[t, slot], expected, atol=1e-5)
    streams = ["--streams", "layout"] if per_frame == 50 else []
    fit = ["fit-head", "stin", *streams, "--preset", "small", "--epochs", "1", "--cache", str(out), "--out", str(run)]
    run_command(*fit)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(run), str(data), "--boxes", str(path)])
    assert ended.value.code == 2 and "trained on proposals" in capsys.readouterr().err


def run_command(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0
