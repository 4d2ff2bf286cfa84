import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cache_cases import (
    IDENTITY,
    PROVENANCE,
    SPEC,
    block_arrays,
    clip_names,
    create_writer,
    fill,
    make_cache,
    protocols,
    resume_writer,
)

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Provenance, Status
from ifcar.cache.verify import verify_cache
from ifcar.errors import CacheMismatchError, InputError, MissingDataError


def with_targets(targets: np.ndarray[Any, Any]) -> ProtocolTable:
    table = protocols(len(targets))[0]
    return dataclasses.replace(table, spaces=(dataclasses.replace(table.labels, targets=targets),))


def test_blocks_are_shards_of_rows_and_become_done_one_by_one(tmp_path: Path) -> None:
    writer = create_writer(tmp_path / "c.zarr", 150, 2)
    assert writer.num_blocks == 2
    assert [writer.rows_of(block) for block in range(2)] == [range(256), range(256, 300)]
    writer.write_block(1, *block_arrays(range(256, 300)))
    assert writer.pending_blocks() == [0]
    assert resume_writer(tmp_path / "c.zarr", 150, 2).pending_blocks() == [0]
    with pytest.raises(InputError, match="block 2 does not exist, expected 0 to 1"):
        writer.rows_of(2)


def test_create_refuses_a_folder_in_use_and_takes_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "c.zarr").mkdir()
    leftover = tmp_path / ".c.zarr.creating" / "boxes"
    leftover.mkdir(parents=True)
    create_writer(tmp_path / "c.zarr", 3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.zarr"]
    with pytest.raises(InputError, match="exists and is not empty"):
        create_writer(tmp_path / "c.zarr", 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_ids": ["a", "b", "a"]}, "clip id 'a' occurs twice"),
        ({"clip_ids": ["a", "b\n", "c"]}, "clip 1 has the id"),
        ({"clip_ids": []}, "at least one clip"),
        ({"num_views": 0}, "at least 1 view"),
        ({"compression": "gzip"}, "compression 'gzip' is not known"),
        ({"protocols": protocols(4)}, r"split is uint8 \(4,\), expected uint8 \(3,\)"),
        ({"protocols": protocols(3)[:1] * 2}, "given twice"),
        ({"protocols": [dataclasses.replace(protocols(3)[0], name="../x")]}, "not usable as a folder name"),
        ({"protocols": [with_targets(np.full(3, 9, np.int16))]}, "targets of labels lie in 9…9"),
    ],
)
def test_unusable_input_leaves_no_cache(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_writer(tmp_path / "c.zarr", 3, **options)
    assert not list(tmp_path.iterdir())


def with_identity(**changes: Any) -> Provenance:
    return Provenance(identity={**IDENTITY, **changes}, environment=PROVENANCE.environment)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"provenance": with_identity(backbone={"name": "slowfast_r50", "weights": "random:0"})},
            'identity.backbone.name is "i3d_r50" in the cache, "slowfast_r50" now. Repeat',
        ),
        ({"provenance": with_identity(seed=None)}, "identity.seed is absent in the cache, null now"),
        ({"spec": SPEC.resized(C=5)}, "size C is 3 in the cache, 5 now"),
        ({"num_views": 2}, "num_views is 1 in the cache, 2 now"),
        (
            {"clip_ids": ["clip-0000", "x", "clip-é"]},
            "the first difference is clip 1 ('clip-0001' in the cache, 'x' now)",
        ),
    ],
)
def test_resume_with_another_fingerprint_names_the_field(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    create_writer(tmp_path / "c.zarr", 3)
    with pytest.raises(CacheMismatchError) as caught:
        resume_writer(tmp_path / "c.zarr", 3, **options)
    assert message in str(caught.value)
    assert "--overwrite" in str(caught.value)


def test_resume_without_a_cache_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no cache at"):
        resume_writer(tmp_path / "c.zarr", 3)


def test_another_environment_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_writer(tmp_path / "c.zarr", 3)
    with caplog.at_level(logging.WARNING):
        resume_writer(tmp_path / "c.zarr", 3, provenance=Provenance(identity=IDENTITY, environment={"numpy": "3"}))
    assert "numpy was '2' when it was begun, '3' now" in caplog.text


def test_resume_replaces_protocols_that_differ_and_keeps_the_rows(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c.zarr", 300)
    table = protocols(300)[0]
    renamed = dataclasses.replace(table.labels, classes=("a", "b", "c"))
    changed = [dataclasses.replace(table, name="shuffled", spaces=(renamed,))]
    assert resume_writer(path, 300, protocols=changed).pending_blocks() == []
    reader = open_cache(path)
    assert reader.protocol_names() == ["shuffled"]
    assert reader.protocol("shuffled").labels.classes == ("a", "b", "c")
    assert verify_cache(path).ok


def test_resume_with_the_same_protocols_changes_no_file(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c.zarr", 300)
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    resume_writer(path, 300)
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("boxes", None, r"missing arrays \['boxes'\]"),
        ("masks", np.zeros(1), r"unknown arrays \['masks'\]"),
        ("flip", np.zeros(20, np.uint8), r"flip is uint8 \(20,\), expected bool \(20,\)"),
        ("boxes", np.zeros((20, 4, 2, 3), np.float32), r"boxes is float32 \(20, 4, 2, 3\), expected"),
        ("status", np.zeros(20, np.uint8), "row 0 has status 0, expected 1"),
        ("status", np.ones(20, np.uint8), "row 5 has status 1, expected 2"),
    ],
)
def test_a_block_that_does_not_fit_is_refused_and_not_committed(
    tmp_path: Path, name: str, values: Any, message: str
) -> None:
    writer = create_writer(tmp_path / "c.zarr", 20)
    arrays, failures = block_arrays(range(20))
    arrays = {key: value for key, value in arrays.items() if key != name} | ({} if values is None else {name: values})
    with pytest.raises(InputError, match=message):
        writer.write_block(0, arrays, failures)
    assert writer.pending_blocks() == [0]
    with pytest.raises(InputError, match="failed row 20 is not in the block"):
        writer.write_block(0, block_arrays(range(20))[0], {20: "x"})


def test_a_committed_block_is_not_written_twice(tmp_path: Path) -> None:
    writer = create_writer(tmp_path / "c.zarr", 20)
    fill(writer)
    with pytest.raises(InputError, match="call reopen_block first"):
        writer.write_block(0, *block_arrays(range(20)))


def test_reopened_block_keeps_its_rows_until_it_is_replaced(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c.zarr", 300)
    writer = resume_writer(path, 300)
    assert [failure.reason for failure in open_cache(path).failures()] == ["no frames in 5.webm"]
    writer.reopen_block(0)
    arrays = writer.stage.read_block(0)
    for name, values in block_arrays(range(256))[0].items():
        assert np.array_equal(arrays[name], values)
    assert writer.pending_blocks() == [0]
    assert (open_cache(path).status()[:256] != Status.PENDING).all()
    arrays["boxes"][5], arrays["status"][5] = 0.25, Status.DONE
    writer.write_block(0, arrays, {})
    reader = open_cache(path)
    assert reader.failures() == []
    assert (reader.read_rows("boxes", np.array([5])) == 0.25).all()
    assert (reader.status() == Status.DONE).all()
    assert verify_cache(path).ok
    with pytest.raises(InputError, match="not committed"):
        create_writer(tmp_path / "d.zarr", 3).reopen_block(0)


def test_boxes_only_cache_has_no_feature_arrays(tmp_path: Path) -> None:
    spec = CacheSpec.standard(num_frames=3, num_steps=3, num_instances=2)
    path = make_cache(tmp_path / "c.zarr", 5, spec=spec)
    assert not list(path.glob("*features"))
    assert np.array_equal(open_cache(path).table("boxes"), block_arrays(range(5), spec)[0]["boxes"])
    assert open_cache(path).clip_ids == clip_names(5)
