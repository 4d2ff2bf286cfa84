"""Rows of features from the stores that people use: python benchmarks/peers.py [--rows N] [--rounds N].

The same rows of 147 kB as a plain file under np.memmap, HDF5 (a row a chunk; with and without its checksum), LMDB, a
WebDataset tar, zarr (our files, by zarr's own reader) and ifcar's reader. In batches of 72, into one array:

random      rows drawn anew for each batch and side, in turn, medians; hot, in the page cache, and cold, dropped before
            every batch. A tar has no rows to draw: its readers shuffle within a buffer.
sequential  all rows in order, once, from a cold cache.

Needs h5py, and `pip install lmdb webdataset`. Works in a temporary folder, about 150 kB a row and store.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import webdataset
import zarr
from machine import facts, median, save
from reading import BATCH, NAME, SPEC, drop_pages, measure, write

from ifcar.cache.open import open_cache

Rows = np.ndarray[Any, np.dtype[np.int64]]
Store = Callable[[Rows], object]
CHECKED = {"ifcar", "HDF5, fletcher32", "zarr"}  # stores that verify what they read


def write_peers(root: Path, plain: np.ndarray[Any, np.dtype[np.float16]]) -> None:
    """Write the rows into every other store below `root`."""
    for name, checked in (("plain.h5", False), ("checked.h5", True)):
        with h5py.File(root / name, "w", libver="latest") as file:
            file.create_dataset(NAME, data=plain, chunks=(1, *plain.shape[1:]), fletcher32=checked)
    with (
        lmdb.open(str(root / "rows.lmdb"), map_size=4 * plain.nbytes + 2**24) as store,
        store.begin(write=True) as transaction,
    ):
        for row, values in enumerate(plain):
            transaction.put(b"%08d" % row, values.tobytes())
    with webdataset.TarWriter(str(root / "rows.tar")) as tar:
        for row, values in enumerate(plain):
            tar.write({"__key__": f"{row:08d}", "bin": values.tobytes()})


def open_stores(root: Path, num_rows: int) -> dict[str, Store]:
    """Open every store that has rows to draw."""
    shape = SPEC.shape(NAME)
    reader, array = open_cache(root / "c.zarr"), zarr.open_group(root / "c.zarr", mode="r")[NAME]
    files = {name: h5py.File(root / f"{name}.h5", "r")[NAME] for name in ("plain", "checked")}

    def of_lmdb(rows: Rows) -> object:
        found = np.empty((len(rows), *shape), np.float16)
        # opened for each batch, as the plain file: pages that are mapped cannot be dropped
        with (
            lmdb.open(str(root / "rows.lmdb"), readonly=True, lock=False, readahead=False) as store,
            store.begin(buffers=True) as transaction,
        ):
            for place, row in enumerate(rows.tolist()):
                found[place] = np.frombuffer(transaction.get(b"%08d" % row), np.float16).reshape(shape)
        return found

    def of_hdf5(file: Any, rows: Rows) -> object:
        found = np.empty((len(rows), *shape), np.float16)
        for place, row in enumerate(rows.tolist()):
            file.read_direct(found, np.s_[row], np.s_[place])
        return found

    raw = root / "c.raw"
    return {
        "np.memmap": lambda rows: np.memmap(raw, np.float16, "r", shape=(num_rows, *shape))[rows],
        "ifcar": lambda rows: reader.read_rows(NAME, rows),
        "HDF5": partial(of_hdf5, files["plain"]),
        "HDF5, fletcher32": partial(of_hdf5, files["checked"]),
        "LMDB": of_lmdb,
        "zarr": lambda rows: array.oindex[rows],
    }


def sequential(root: Path, stores: dict[str, Store], num_rows: int) -> dict[str, float]:
    """Return the rows a second of one pass over all rows in order, from a cold page cache."""

    def of_tar() -> None:
        shape = SPEC.shape(NAME)
        samples = webdataset.WebDataset(str(root / "rows.tar"), shardshuffle=False, empty_check=False)
        batch: list[Any] = []
        for sample in samples:
            batch.append(np.frombuffer(sample["bin"], np.float16).reshape(shape))
            if len(batch) == BATCH:
                np.stack(batch)
                batch.clear()

    def of_rows(store: Store) -> None:
        for first in range(0, num_rows, BATCH):
            store(np.arange(first, min(first + BATCH, num_rows)))

    passes: dict[str, Callable[[], None]] = {name: partial(of_rows, store) for name, store in stores.items()}
    rates = {}
    for name, whole in {**passes, "WebDataset tar": of_tar}.items():
        drop_pages(root)
        started = time.perf_counter()
        whole()
        rates[name] = num_rows / (time.perf_counter() - started)
    return rates


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plain = write(root / "c.zarr", arguments.rows)
        write_peers(root, plain)
        stores = open_stores(root, arguments.rows)
        expected = plain[[5, 3, 71]]
        for name, store in stores.items():
            np.testing.assert_array_equal(store(np.array([5, 3, 71])), expected, err_msg=name)
        del plain  # pages that are mapped cannot be dropped
        hot = measure(stores, arguments.rows, arguments.rounds, None)
        cold = measure(stores, arguments.rows, max(5, arguments.rounds // 3), lambda: drop_pages(root))
        rates = sequential(root, stores, arguments.rows)
    here = facts("cpu")
    print(f"{here}\n\n| store | checks bytes | random, hot, ms | cold, ms | in order, cold, rows/s |")
    print("|---|---|---|---|---|")
    for name, rate in rates.items():
        times = [f"{1000 * median(part[name]):.2f}" if name in part else "–" for part in (hot, cold)]
        print(f"| {name} | {'yes' if name in CHECKED else 'no'} | {' | '.join(times)} | {rate:,.0f} |")
    row_bytes = SPEC.row_bytes([NAME])
    content = {"rows": arguments.rows, "batch": BATCH, "row_bytes": row_bytes, "hot_seconds": hot, "cold_seconds": cold}
    print(save("peers", {**here, **content, "sequential_rows_per_sec": rates}, "cpu"))


if __name__ == "__main__":
    main()
