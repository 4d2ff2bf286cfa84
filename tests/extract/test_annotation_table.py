"""Annotations kept as a table: what is read from it is what was read from the files, until one of these changes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.processes import files_below
from fixtures.something_else import write_dataset

from ifcar.cache.protocols import protocol_arrays, protocol_attributes
from ifcar.errors import InputError
from ifcar.extract import annotation_writing
from ifcar.extract.annotation_table import AnnotationTable, column, key_of, open_table
from ifcar.extract.annotation_writing import write_table
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.extract.datasets.toybox import Toybox
from ifcar.extract.tracks import Tracks
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig

CLIPS = 9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "d", CLIPS)


def kept(root: Path, path: Path, *, pixels: bool = True) -> tuple[SomethingElse, Any]:
    """Read a data set, and write its table."""
    dataset = SomethingElse(root)
    listing = dataset.listing(needs_pixels=pixels)
    protocols, notes = dataset.protocols([clip.clip_id for clip in listing.clips])
    key = key_of(dataset, {"pixels": pixels})
    assert key is not None
    write_table(path, key, listing, protocols, notes, dataset.tracks)
    return dataset, (listing, protocols, notes)


def reopened(root: Path, path: Path, *, pixels: bool = True) -> AnnotationTable | None:
    key = key_of(SomethingElse(root), {"pixels": pixels})
    assert key is not None
    return open_table(path, key)


def assert_same_tracks(found: Tracks, expected: Tracks) -> None:
    for name in ("frames", "boxes", "categories"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("pixels", [True, False])
def test_a_table_holds_what_was_read_from_the_files(root: Path, tmp_path: Path, pixels: bool) -> None:
    odd = json.loads((root / "annotations.json").read_text())
    odd["é x"] = json.loads(json.dumps(odd["103"][:2]).replace("103/", "é x/"))
    odd["none"] = []
    (root / "annotations.json").write_text(json.dumps(odd))
    (root / "videoid2size.json").write_text(json.dumps({**{c: [64, 48] for c in odd}, "104": [32, 24]}))
    dataset, (listing, protocols, notes) = kept(root, tmp_path / "t", pixels=pixels)
    table = reopened(root, tmp_path / "t", pixels=pixels)
    assert table is not None and len(listing.clips) == CLIPS + (not pixels)
    assert list(table.listing.clips) == list(listing.clips) and table.listing.digest == listing.digest
    assert (table.listing.notes, table.listing.problems) == (list(listing.notes), list(listing.problems))
    assert table.protocol_notes == notes
    for ours, theirs in zip(table.protocols(), protocols, strict=True):
        assert ours.name == theirs.name and protocol_attributes(ours) == protocol_attributes(theirs)
        for name, values in protocol_arrays(theirs).items():
            np.testing.assert_array_equal(protocol_arrays(ours)[name], values)
    for clip in listing.clips:
        assert_same_tracks(table.tracks(clip.clip_id), dataset.tracks(clip.clip_id))
        assert table.num_tracks(clip.clip_id) == dataset.num_tracks(clip.clip_id)
    part = table.listing.clips[2:5]
    assert list(part) == list(listing.clips[2:5])
    for name in ("clip_id", "source", "segment", "span_sec", "frame_size"):
        assert column(part, name) == [getattr(clip, name) for clip in listing.clips[2:5]]
    with pytest.raises(KeyError):
        table.tracks("105 or so")


CHANGES = {
    "annotations, of one size and time": lambda root: rewrite(root / "annotations.json"),
    "a split": lambda root: rewrite(root / "splits" / "compositional" / "train.json"),
    "sizes gone": lambda root: (root / "videoid2size.json").unlink(),
    "a further split": lambda root: shutil.copytree(root / "splits" / "compositional", root / "splits" / "more"),
    "another file moved there": lambda root: shutil.copy2(root / "annotations.json", root / "x").replace(
        root / "annotations.json"
    ),
    "frames gone": lambda root: shutil.rmtree(root / "frames" / "101"),
    "videos": lambda root: (root / "videos").mkdir(),
}


def rewrite(path: Path) -> None:
    """Write other bytes into a file, as many as before, and put its times back."""
    before, data = path.stat(), path.read_bytes()
    path.write_bytes(data.replace(b", ", b" ,", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_any_file_is_seen(root: Path, tmp_path: Path, change: str) -> None:
    kept(root, tmp_path / "t")
    assert reopened(root, tmp_path / "t") is not None
    assert reopened(root, tmp_path / "t", pixels=False) is None
    CHANGES[change](root)
    assert reopened(root, tmp_path / "t") is None


def test_a_damaged_table_is_passed_over_and_damaged_tracks_are_one_line(root: Path, tmp_path: Path) -> None:
    dataset, _ = kept(root, tmp_path / "t")
    data = (tmp_path / "t").read_bytes()
    table = reopened(root, tmp_path / "t")
    assert table is not None
    columns = int(table._about["columns_start"])
    for place in (0, columns, columns + 40, len(data) - 300, len(data) - 30, len(data) - 1):
        (tmp_path / "u").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert reopened(root, tmp_path / "u") is None
    for damaged in (b"", data[:10], data[:-7], data + b"x"):
        (tmp_path / "u").write_bytes(damaged)
        assert reopened(root, tmp_path / "u") is None
    (tmp_path / "u").write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    table = reopened(root, tmp_path / "u")
    assert table is not None
    with pytest.raises(InputError, match=r"u: clip '100' is damaged; delete the file"):
        table.tracks("100")
    assert_same_tracks(table.tracks("101"), dataset.tracks("101"))


def test_no_table_stands_for_a_class_that_only_inherits_its_files_or_clips_that_say_more(tmp_path: Path) -> None:
    assert key_of(Toybox(tmp_path), {}) is None and key_of(SomethingElse(tmp_path), {}) is not None


@pytest.mark.slow
def test_a_cache_from_the_table_has_the_bytes_of_one_from_the_files(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str) -> dict[str, bytes]:
        config = ExtractConfig(
            dataset="something-else", data_root=root, backbone="none", workers=0, out=tmp_path / name, views=2,
            augmented_views=1,
        )  # fmt: skip
        extract(config)
        return files_below(tmp_path / name)

    expected = run("few.zarr")
    assert not (tmp_path / "few.annotations").exists()
    monkeypatch.setattr(annotation_writing, "MIN_CLIPS", 1)
    assert run("c.zarr") == expected and (tmp_path / "c.annotations").is_file()
    before = (tmp_path / "c.annotations").stat()
    shutil.rmtree(tmp_path / "c.zarr")
    with monkeypatch.context() as patch:
        patch.delattr(SomethingElse, "listing")
        patch.setattr(SomethingElse, "__abstractmethods__", frozenset())
        assert run("c.zarr") == expected  # the files are not read
    rewrite(root / "splits" / "compositional" / "labels.json")
    run("c.zarr")
    assert (tmp_path / "c.annotations").stat() != before
