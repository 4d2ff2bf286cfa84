"""Augmented views that no protocol wants: rows that are committed without content and take no room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from cache_cases import SPEC, create_writer, resume_writer
from numpy.typing import NDArray

from ifcar.cache.export import export_hdf5
from ifcar.cache.open import open_cache
from ifcar.cache.schema import Status
from ifcar.cache.verify import verify_cache
from ifcar.errors import CacheMismatchError, InputError

CLIPS, PLAIN, AUGMENTED = 90, 1, 3
NUM_ROWS = CLIPS * (PLAIN + AUGMENTED)


def wanted_rows() -> NDArray[np.bool_]:
    """Augmented views of every second clip are wanted; of the last block's clips none are."""
    clip, view = np.divmod(np.arange(NUM_ROWS), PLAIN + AUGMENTED)
    return (view < PLAIN) | ((clip % 2 == 0) & (clip < 64))


def content(rows: range, wanted: NDArray[np.bool_]) -> dict[str, NDArray[np.generic]]:
    arrays = SPEC.empty_rows(len(rows))
    arrays["status"][:] = np.where(wanted[rows.start : rows.stop], Status.DONE, Status.NOT_WANTED)
    for place, row in enumerate(rows):
        rng = np.random.default_rng(row)
        for name, values in arrays.items():
            if name != "status" and wanted[row] and row != 8:  # row 8 is wanted and all zeros
                values[place] = (1 + rng.random(values.shape[1:]) * 100).astype(values.dtype)
    return arrays


def write_cache(path: Path, compression: str | None) -> Path:
    writer = create_writer(path, CLIPS, PLAIN, num_augmented_views=AUGMENTED, compression=compression)
    for block in writer.pending_blocks():
        writer.write_block(block, content(writer.rows_of(block), wanted_rows()), {})
    return path


@pytest.fixture(scope="module", params=[None, "zstd"])
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cache(tmp_path_factory.mktemp("gaps") / "c.zarr", request.param)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPEC.names())
def test_rows_read_as_zarr_reads_them_in_any_order(cache: Path, name: str) -> None:
    rows = np.random.default_rng(0).integers(0, NUM_ROWS, 500)
    found, oracle = open_cache(cache).read_rows(name, rows), zarr.open_group(cache, mode="r")[name].oindex[rows]
    np.testing.assert_array_equal(found, oracle)
    everything = content(range(NUM_ROWS), wanted_rows())[name]
    np.testing.assert_array_equal(open_cache(cache).read_rows(name, np.arange(NUM_ROWS)), everything)


@pytest.mark.slow
def test_the_cache_is_whole_and_so_is_its_export(cache: Path, tmp_path: Path) -> None:
    assert verify_cache(cache).ok
    export_hdf5(cache, tmp_path / "c.h5")
    assert verify_cache(tmp_path / "c.h5").ok
    exported = open_cache(tmp_path / "c.h5")
    assert exported.rows_per_clip == PLAIN + AUGMENTED
    np.testing.assert_array_equal(exported.status(), open_cache(cache).status())
    reader = open_cache(cache)
    reader.advise("grid_features", np.arange(NUM_ROWS))
    assert reader.rows_of(np.array([1, 3])).tolist() == [[4, 5, 6, 7], [12, 13, 14, 15]]


def test_rows_that_are_not_wanted_take_no_room(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "c.zarr", None)
    for name in ("instance_features", "grid_features"):
        for block, rows in ((0, range(256)), (1, range(256, NUM_ROWS))):
            (file,) = [f for f in (cache / name).iterdir() if f.name.startswith(f"c.{block}.")]
            stored = wanted_rows()[rows.start : rows.stop].sum() - (block == 0)  # without the wanted row of zeros
            assert file.stat().st_size == stored * (SPEC.row_bytes([name]) + 4) + 256 * 16 + 4


def test_a_plain_view_cannot_be_unwanted_nor_a_failed_one(tmp_path: Path) -> None:
    writer = create_writer(tmp_path / "c.zarr", CLIPS, PLAIN, num_augmented_views=AUGMENTED)
    arrays = content(writer.rows_of(0), wanted_rows())
    for row, status, failures, expected in (
        (4, Status.NOT_WANTED, {}, r"row 4 has status 3, expected 1 \(done\)"),
        (5, Status.NOT_WANTED, {5: "why"}, r"row 5 has status 3, expected 2 \(failed\)"),
        (5, Status.PENDING, {}, r"row 5 has status 0, expected 1 \(done\) or 3 \(not wanted\)"),
    ):
        status_table = arrays["status"].copy()
        status_table[row] = status
        with pytest.raises(InputError, match=expected):
            writer.write_block(0, {**arrays, "status": status_table}, failures)


def test_numbers_of_views_are_told_apart(tmp_path: Path) -> None:
    """One plain view and three augmented ones are as many rows as four plain ones, and another cache."""
    path = tmp_path / "c.zarr"
    create_writer(path, CLIPS, PLAIN, num_augmented_views=AUGMENTED)
    assert resume_writer(path, CLIPS, PLAIN, num_augmented_views=AUGMENTED).num_blocks == 2
    with pytest.raises(
        CacheMismatchError, match="num_augmented_views is 3 in the cache, 0 now; num_views is 1 in the cache, 4"
    ):
        resume_writer(path, CLIPS, PLAIN + AUGMENTED)
