"""Boxes in another unit than the reader's, and data without a subject: said in a note, in every data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.ava import write_ava
from fixtures.charades import ANNOTATED_SIZE, action_genome, write_boxes, write_lists
from fixtures.hockey import write_hockey
from fixtures.something_else import write_dataset
from fixtures.volleyball import write_volleyball

from ifcar.errors import InputError
from ifcar.extract.datasets.box_notes import in_shares
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.datasets.proposals import read_proposals

UNIT, SUBJECT = "if they are shares of the picture's sides", "no box is of a subject"
Change = Callable[[str, list[float]], tuple[str, list[float]]]


def rewrite_records(path: Path, change: Change, only: str | None = None) -> None:
    """Change category and corners of every box of a file of records, or of one clip's."""
    content = json.loads(path.read_text())
    for clip_id, records in content.items():
        for entry in (label for record in records for label in record["labels"] if only in (None, clip_id)):
            corners = [entry["box2d"][key] for key in ("x1", "y1", "x2", "y2")]
            entry["standard_category"], corners = change(entry["standard_category"], corners)
            entry["box2d"] = dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))
    path.write_text(json.dumps(content))


def something_else(root: Path, change: Change) -> None:
    write_dataset(root, num_clips=4, pixels=False)
    rewrite_records(root / "annotations.json", change)


def hockey(root: Path, change: Change) -> None:
    write_hockey(root, pixels=False)
    rewrite_records(root / "boxes.json", change)


def charades(root: Path, change: Change) -> None:
    write_lists(root)
    things, persons = action_genome()
    for name, record in persons.items():
        changed = [change("person", box.tolist()) for box in record["bbox"]]
        record["bbox"] = np.array([box for kind, box in changed if kind == "person"], np.float32).reshape(-1, 4)
        for item in things[name]:
            if item["bbox"] is not None:
                x, y, width, height = item["bbox"]
                x1, y1, x2, y2 = change("book", [x, y, x + width, y + height])[1]
                item["bbox"] = (x1, y1, x2 - x1, y2 - y1)
    write_boxes(root, things, persons)


def volleyball(root: Path, change: Change) -> None:
    write_volleyball(root, pixels=False)
    for path in root.glob("videos/*/annotations.txt"):
        lines = []
        for line in path.read_text().splitlines():
            words = line.split()
            for place in range(2, len(words), 5):
                x, y, width, height = map(float, words[place : place + 4])
                x1, y1, x2, y2 = change("person", [x, y, x + width, y + height])[1]
                words[place : place + 4] = [str(value) for value in (x1, y1, x2 - x1, y2 - y1)]
            lines.append(" ".join(words))
        path.write_text("\n".join(lines))


WRITERS = {"something-else": something_else, "hockey": hockey, "charades": charades, "volleyball": volleyball}


def same(kind: str, corners: list[float]) -> tuple[str, list[float]]:
    return kind, corners


def shares(kind: str, corners: list[float]) -> tuple[str, list[float]]:
    return kind, [corner / side for corner, side in zip(corners, ANNOTATED_SIZE * 2, strict=True)]


def renamed(kind: str, corners: list[float]) -> tuple[str, list[float]]:
    return kind.capitalize(), corners


def notes(name: str, root: Path) -> list[str]:
    return list(DATASETS.get(name)(root).listing(needs_pixels=False).notes)


@pytest.mark.parametrize("name", WRITERS)
def test_boxes_in_shares_where_pixels_are_meant_are_the_first_note(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "pixels", same)
    assert not any(UNIT in note or SUBJECT in note for note in notes(name, tmp_path / "pixels"))
    WRITERS[name](tmp_path / "shares", shares)
    assert UNIT in notes(name, tmp_path / "shares")[0]


@pytest.mark.parametrize("name", ["something-else", "hockey", "charades"])
def test_data_without_a_subject_is_said_with_what_there_is(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path, renamed)
    (found,) = (note for note in notes(name, tmp_path) if SUBJECT in note)
    assert {"something-else": "'0000', 'Hand'", "hockey": "'Person'", "charades": "'book'"}[name] in found


def test_single_clips_in_shares_are_counted(tmp_path: Path) -> None:
    write_dataset(tmp_path, num_clips=4, pixels=False)
    rewrite_records(tmp_path / "annotations.json", shares, only="102")
    assert (
        f"1 of 4 clips with boxes, the first '102' of {tmp_path / 'annotations.json'}: "
        in notes("something-else", tmp_path)[0]
    )


@pytest.mark.parametrize("ending", [".json", ".npz"])
def test_proposals_in_shares_are_noted_and_have_no_subjects_to_miss(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"p{ending}"

    def read(boxes: list[list[float]]) -> list[str]:
        if ending == ".json":
            path.write_text(json.dumps({"v": {"1": boxes}}))
        else:
            np.savez(path, clip=np.array(["v"] * len(boxes)), frame=np.ones(len(boxes), int), box=np.array(boxes))
        return list(read_proposals(path, [Clip(clip_id="v", source=None, frame_size=None)], 4).notes)

    assert read([[0.1, 0.2, 40, 30], [0.1, 0.2, 0.4, 0.3]]) == []
    assert UNIT in read([[0.1, -0.02, 1.04, 0.3], [0.1, 0.2, 0.4, 0.3]])[0]


@pytest.mark.parametrize(("box", "noted"), [([0.1, 0.2, 0.5, 0.9], False), ([32, 20, 64, 60], True)])
def test_proposals_in_pixels_where_shares_are_meant_are_noted(box: list[float], noted: bool, tmp_path: Path) -> None:
    """Where a data set without pixels has frames of 1 × 1."""
    (tmp_path / "p.json").write_text(json.dumps({"clip": {"60": [box]}}))
    clip = Clip(clip_id="clip", source=None, frame_size=(1, 1))
    notes = read_proposals(tmp_path / "p.json", [clip], 4, shares=True).notes
    assert any("if they are pixels, divide them" in note for note in notes) is noted
    assert not any(UNIT in note for note in notes)


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([[0, 0, 1, 1]], True),
        ([[-0.4, 0.1, 1.45, 0.9], [np.nan] * 4], True),
        ([[0.1, 0.1, 0.5, 1.6]], False),
        ([[0, 0, 2, 2]], False),
        ([[np.nan] * 4], False),
    ],
)
def test_shares_reach_a_little_past_the_picture(boxes: Any, expected: bool) -> None:
    assert in_shares(np.array(boxes)) is expected


def test_pixels_where_ava_means_shares_are_refused_with_what_to_do(tmp_path: Path) -> None:
    root = write_ava(tmp_path, pixels=False)
    (root / "ava_train_v2.2.csv").write_text("a,0902,32,20,64,60,12,0\n")
    with pytest.raises(InputError, match=r"line 1: x1 is 32; expected 0 to 1, a share of the frame's side \(divide"):
        notes("ava", root)
