"""Caches of format version 1 and runs trained on them, as they were left: opened, checked, gone on with, scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fixtures.version_one import unpack

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.export import export_hdf5
from ifcar.cache.open import open_cache
from ifcar.cache.repair import repair_cache
from ifcar.cache.schema import Status, fingerprint
from ifcar.cache.verify import verify_cache
from ifcar.cache.writer import CacheWriter
from ifcar.errors import CacheMismatchError
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.versions import FEATURE_VERSION
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.finished import open_run, read_config

FEATURES_THEN = 3
PIXELS_FINGERPRINT = "3b5ad0a4de11453c5853c97855a498a16d74148ff40b30fe3e1de8599bcedb78"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(unpack(tmp_path))
    return tmp_path


def boxes_only(out: str, **options: object) -> ExtractConfig:
    values = {
        "dataset": "something-else",
        "data_root": Path("data"),
        "out": Path(out),
        "backbone": "none",
        "workers": 0,
    }
    return ExtractConfig(**{**values, **options})  # type: ignore[arg-type]


def files_below(cache: Path) -> dict[str, bytes]:
    return {str(p.relative_to(cache)): p.read_bytes() for p in sorted(cache.rglob("*")) if p.is_file()}


def test_a_version_1_cache_opens_with_its_own_fingerprint_and_is_whole(place: Path) -> None:
    reader = open_cache(Path("caches/pixels.zarr"))
    assert reader.manifest.format_version == 1 and reader.fingerprint == PIXELS_FINGERPRINT
    assert reader.spec == CacheSpec.standard(
        num_frames=4, num_steps=1, num_instances=2, channels=832, pooled_size=1, grid_size=(2, 2)
    )
    rows = np.arange(reader.num_rows)
    grid = reader.read_rows("grid_features", rows).astype(np.float32)
    mean = reader.read_rows("frame_features", rows).astype(np.float32)
    np.testing.assert_allclose(grid.mean((-2, -1)), mean, atol=2e-3)
    assert [failure.clip_id for failure in reader.failures()] == ["102"]
    for name in ("boxes.zarr", "half.zarr", "pixels.zarr", "boxes.h5"):
        assert verify_cache(Path("caches", name)).ok


def resumed(path: Path) -> CacheWriter:
    """Open a cache to go on with it, as one of what it says of itself."""
    reader = open_cache(path)
    return CacheWriter.resume(
        path,
        spec=reader.spec,
        provenance=reader.manifest.provenance,
        clip_ids=reader.clip_ids,
        num_views=reader.num_views,
        protocols=[reader.protocol(name) for name in reader.protocol_names()],
    )


def test_a_half_finished_version_1_cache_is_finished_as_version_1(place: Path) -> None:
    path = Path("caches/half.zarr")
    before, reader = files_below(path), open_cache(path)
    writer = resumed(path)
    assert writer.pending_blocks() == [1]
    rows = np.arange(len(writer.rows_of(1)))
    arrays = {name: reader.read_rows(name, rows) for name in reader.spec.names()}
    writer.write_block(1, arrays, {})
    after = files_below(path)
    assert {name: after[name] for name in before} == before
    old = open_cache(path)
    assert old.manifest.format_version == 1 and old.is_complete() and verify_cache(path).ok
    for name, values in arrays.items():
        np.testing.assert_array_equal(old.read_rows(name, np.array(writer.rows_of(1))), values, err_msg=name)


def test_rows_extracted_anew_are_those_of_version_1_under_the_same_fingerprint(place: Path) -> None:
    extract(boxes_only("caches/fresh.zarr", frames=4, instances=2), Silent())
    old, fresh = (open_cache(Path("caches", name)) for name in ("boxes.zarr", "fresh.zarr"))
    assert (old.manifest.format_version, fresh.manifest.format_version) == (1, 2)
    then = {**fresh.identity, "feature_version": FEATURES_THEN}
    assert old.fingerprint == fingerprint(fresh.spec, then, fresh.clip_ids, fresh.num_views)
    for name in old.spec.names():
        np.testing.assert_array_equal(old.table(name), fresh.table(name), err_msg=name)


def test_a_block_of_a_version_1_cache_is_written_again(place: Path) -> None:
    path = Path("caches/pixels.zarr")
    before = open_cache(path)
    (failed,) = np.flatnonzero(before.status() == Status.FAILED)
    rows = np.delete(np.arange(before.num_rows), failed)
    old = {name: before.read_rows(name, rows) for name in before.spec.names()}
    writer = resumed(path)
    writer.reopen_block(0)
    arrays = writer.stage.read_block(0)
    arrays["status"][failed] = Status.DONE
    writer.write_block(0, arrays, {})
    reader = open_cache(path)
    assert reader.manifest.format_version == 1 and (reader.status() == Status.DONE).all() and verify_cache(path).ok
    for name, values in old.items():
        np.testing.assert_array_equal(reader.read_rows(name, rows), values, err_msg=name)


def test_features_made_by_other_code_are_not_gone_on_with(place: Path) -> None:
    message = f"feature_version is {FEATURES_THEN} in the cache, {FEATURE_VERSION} now"
    with pytest.raises(CacheMismatchError, match=message):
        extract(boxes_only("caches/half.zarr", frames=2, instances=1, views=40), Silent())


def test_other_arrays_do_not_go_into_a_version_1_cache(place: Path) -> None:
    with pytest.raises(CacheMismatchError, match="size N is 2 in the cache, 3 now"):
        extract(boxes_only("caches/boxes.zarr", frames=4, instances=3), Silent())


def test_repair_writes_a_version_1_cache_s_metadata_as_it_was(place: Path) -> None:
    cache = Path("caches/boxes.zarr")
    before = files_below(cache)
    (cache / "boxes" / "zarr.json").write_bytes(b"{}")
    assert not verify_cache(cache).ok
    assert repair_cache(cache) == {cache: []}
    after = files_below(cache)
    kept = {name for name in before if not name.startswith(("protocols", "commits"))}
    assert {name: json.loads(after[name]) for name in kept if name.endswith(".json")} == {
        name: json.loads(before[name]) for name in kept if name.endswith(".json")
    }


def test_an_export_of_a_version_1_cache_is_one_of_version_1(place: Path) -> None:
    export_hdf5(Path("caches/boxes.zarr"), Path("again.h5"))
    old, again = open_cache(Path("caches/boxes.h5")), open_cache(Path("again.h5"))
    assert old.manifest == again.manifest and old.manifest.format_version == 1
    for name in old.spec.names():
        np.testing.assert_array_equal(old.table(name), again.table(name))


def test_runs_on_version_1_caches_score_as_they_did(place: Path) -> None:
    for name in ("base", "whole"):
        assert evaluate(Path("runs", name)).agrees
        stored = open_run(Path("runs", name)).metric("test")
        assert stored is not None and evaluate(Path("runs", name)).metrics.top1 == stored.top1


@pytest.mark.slow
def test_a_run_stopped_on_a_version_1_cache_goes_on_to_the_end_it_would_have_had(place: Path) -> None:
    stopped = Path("runs/stopped")
    fit(read_config(stopped / "config.yaml"), Silent(), out=stopped, resume=True, device="cpu")  # type: ignore[arg-type]
    found, whole = (open_run(Path("runs", name)).predictions("test").logits for name in ("stopped", "whole"))
    np.testing.assert_allclose(found, whole, rtol=1e-3, atol=1e-4)
