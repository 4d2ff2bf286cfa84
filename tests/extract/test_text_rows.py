"""Generated rows of AVA, Volleyball and Hockey: read, or refused in one line with file and place."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixtures.ava import write_ava
from fixtures.hockey import write_hockey
from fixtures.volleyball import write_volleyball
from hypothesis import given, settings
from hypothesis import strategies as st

from ifcar.cli import main
from ifcar.errors import IfcarError
from ifcar.extract.datasets.ava_files import read_key_frames
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.hockey import COLUMNS, read_annotations
from ifcar.extract.datasets.volleyball import read_annotations as read_volleyball

REPEATABLE = settings(max_examples=150, derandomize=True, deadline=None)
NUMBERS = st.one_of(
    st.floats(0, 1).map(str),
    st.floats().map(str),
    st.integers(-3, 2000).map(str),
    st.sampled_from(["", "0x1", "1_0", "٣"]),
)
WORDS = st.one_of(st.text(max_size=5), st.sampled_from(["a", "b"]))
AVA_ROWS = st.tuples(WORDS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS).map(",".join)
PARTS, LABELS = st.sampled_from(["train", "test", "", "x"]), st.sampled_from(["check", "face-off;check", "", "x"])
HOCKEY_ROWS = st.tuples(WORDS, WORDS, NUMBERS, NUMBERS, PARTS, LABELS).map(",".join)
PLAYERS = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["waiting", "falling"])).map(" ".join)
KEYS, ACTIVITIES = st.integers(0, 9).map("{}.jpg".format), st.sampled_from(["r_set", "l_set", "x"])
VOLLEYBALL_ROWS = st.tuples(KEYS, ACTIVITIES, PLAYERS).map(" ".join)


def read_or_refused(name: str, content: str, read: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        try:
            read(path)
        except IfcarError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) == 1, error


@REPEATABLE
@given(st.lists(st.one_of(AVA_ROWS, st.text(max_size=20)), max_size=3))
def test_ava_rows(rows: list[str]) -> None:
    def read(path: Path) -> None:
        found = read_key_frames(path, {1: 0, 2: 1}, hashlib.sha256(), BoxNotes())
        corners = np.array([box for persons in found.persons.values() for box in persons]).reshape(-1, 4)
        assert ((corners >= 0) & (corners <= 1)).all() and (corners[:, 2:] > corners[:, :2]).all()

    read_or_refused("ava_train_v2.2.csv", "\n".join(rows), read)


@REPEATABLE
@given(st.lists(st.one_of(HOCKEY_ROWS, st.text(max_size=20)), max_size=3))
def test_hockey_rows(rows: list[str]) -> None:
    def read(path: Path) -> None:
        for annotation in read_annotations(path, ("face-off", "check"), hashlib.sha256()).values():
            assert 0 <= annotation.span_sec[0] < annotation.span_sec[1] and annotation.classes <= {0, 1}

    read_or_refused("annotations.csv", "\n".join([",".join(COLUMNS), *rows]), read)


@REPEATABLE
@given(st.lists(st.one_of(VOLLEYBALL_ROWS, st.text(max_size=20)), max_size=3))
def test_volleyball_lines(rows: list[str]) -> None:
    def read(path: Path) -> None:
        for frame in read_volleyball(path, hashlib.sha256(), BoxNotes()):
            assert frame.number >= 1 and np.isfinite(frame.boxes).all()
            assert (frame.boxes[:, 2:] > frame.boxes[:, :2]).all()

    read_or_refused("annotations.txt", "\n".join(rows), read)


@pytest.mark.parametrize(
    ("dataset", "write", "name"),
    [
        ("ava", write_ava, "ava_val_v2.2.csv"),
        ("volleyball", write_volleyball, "videos/4/annotations.txt"),
        ("hockey", write_hockey, "annotations.csv"),
    ],
)
def test_command_ends_with_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dataset: str, write: Callable[..., Path], name: str
) -> None:
    root = write(tmp_path / "data", pixels=False)
    (root / "videos").mkdir(exist_ok=True)
    with (root / name).open("a") as file:
        file.write("broken\n")
    command = ["extract", "--dataset", dataset, "--data-root", str(root), "--out", str(tmp_path / "c.zarr")]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--backbone", "none", "--workers", "0"])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and f"{root / name} line" in error, error
