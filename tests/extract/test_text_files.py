"""Byte order marks in every text file of every data set, of proposals, configs and records: read, or refused."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.ava import write_ava
from fixtures.charades import write_charades
from fixtures.hockey import write_hockey
from fixtures.homage import write_homage
from fixtures.something_else import label, record, write_dataset
from fixtures.volleyball import write_volleyball

from ifcar.errors import InputError
from ifcar.extract.backbones.downloads import download
from ifcar.extract.backbones.spec import Normalisation, PublishedWeights
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.datasets.proposals import read_proposals
from ifcar.extract.datasets.something_else import read_one_clip
from ifcar.pipelines.configs import read_yaml
from ifcar.text_files import read_text

WRITERS: dict[str, Callable[..., Path]] = {
    "something-else": write_dataset,
    "charades": write_charades,
    "ava": write_ava,
    "volleyball": write_volleyball,
    "hockey": write_hockey,
    "homage": lambda root, *, pixels: write_homage(root, 1),
}
TEXTS = {".json", ".csv", ".txt", ".pbtxt"}
RECORDS = [record("v", frame, [label("hand", (2, 3, 40, 41))]) for frame in range(3)]


def text_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix in TEXTS)


def read(name: str, root: Path) -> list[Any]:
    """Everything that a data set reads from its text files, apart from their digest."""
    dataset = DATASETS.get(name)(root)
    listing = dataset.listing(needs_pixels=name == "hockey")
    ids = [clip.clip_id for clip in listing.clips]
    assert ids
    tables, notes = dataset.protocols(ids)
    arrays = [array.tolist() for table in tables for array in (table.split, table.labels.targets, table.groups)]
    boxes = [np.nan_to_num(dataset.tracks(clip_id).boxes).tolist() for clip_id in ids if name != "charades"]
    return [
        listing.clips,
        listing.notes,
        listing.problems,
        [(t.name, t.labels.classes, t.group_names) for t in tables],
        notes,
        arrays,
        boxes,
    ]


@pytest.mark.parametrize("name", WRITERS)
def test_byte_order_mark_changes_nothing_and_other_encodings_are_refused_by_name(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path, pixels=name == "hockey")
    if name == "charades":
        (root / "videoid2fps.json").write_text('{"TRA0A": 30}')
    expected = read(name, root)
    contents = {path: path.read_bytes() for path in text_files(root)}
    assert len(contents) >= 3
    for path, content in contents.items():
        path.write_bytes(codecs.BOM_UTF8 + content)
    assert read(name, root) == expected
    for path, content in contents.items():
        for encoding in ("utf-16", "utf-16-be", "utf-32") if content else ():
            path.write_bytes(content.decode().encode(encoding))
            with pytest.raises(InputError) as caught:
                read(name, root)
            assert str(path) in str(caught.value) and "UTF-8" in str(caught.value)
        path.write_bytes(content)


def test_joined_files_may_hold_a_mark_at_every_line(tmp_path: Path) -> None:
    root = write_ava(tmp_path, pixels=False)
    expected = read("ava", root)
    path = root / "ava_train_v2.2.csv"
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(codecs.BOM_UTF8 + first + b"\r\n" + codecs.BOM_UTF8 + rest)
    assert read("ava", root) == expected


def test_boxes_to_predict_with_and_proposals_may_begin_with_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    for content in (RECORDS, {"v": RECORDS}):
        path.write_text(json.dumps(content))
        plain = read_one_clip(path, None, "v")
        path.write_bytes(codecs.BOM_UTF8 + b"\r\n" + path.read_bytes())
        marked = read_one_clip(path, None, "v")
        assert marked[0] == plain[0] and marked[1].boxes.tolist() == plain[1].boxes.tolist()
    path.write_bytes(codecs.BOM_UTF8 + b'{"v": {"1": [[1, 2, 30, 40]]}}')
    clip = Clip(clip_id="v", source=None, frame_size=None)
    assert read_proposals(path, [clip], 1).boxes("v").boxes.tolist() == [[[1, 2, 30, 40]]]


def test_configs_and_recorded_digests_may_begin_with_a_mark(tmp_path: Path) -> None:
    config = tmp_path / "grid.yaml"
    config.write_bytes(codecs.BOM_UTF8 + b"name: tiny\nseeds: [0]\n")
    assert read_yaml(config) == {"name": "tiny", "seeds": [0]}
    config.write_text("name: tiny\n", encoding="utf-16")
    with pytest.raises(InputError, match=r"grid.yaml: text in UTF-16, as its byte order mark says; expected UTF-8"):
        read_yaml(config)
    published = tmp_path / "w.pth"
    published.write_bytes(b"weights")
    folder = tmp_path / "weights"
    entry = PublishedWeights(
        address=published.as_uri(), license="", normalisation=Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3)
    )
    path = download(entry, folder)
    sidecar = folder / "w.pth.sha256"
    sidecar.write_bytes(codecs.BOM_UTF8 + sidecar.read_bytes())
    assert download(entry, folder) == path


@pytest.mark.parametrize("content", [b"a\xe9b", b"a\0b", codecs.BOM_UTF8 + b"\xff"])
def test_no_text_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_text(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
