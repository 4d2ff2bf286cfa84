"""Opening a cache from a plain web server, and which protocol commands have to be told of one."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from cache_cases import make_cache, protocols

from ifcar.cache.addresses import place_of
from ifcar.cache.open import open_cache, protocol_to_name
from ifcar.cache.schema import Split

NUM_CLIPS = 6


def test_the_protocol_to_name_is_one_that_can_be_trained_and_tested(tmp_path: Path) -> None:
    single, multi = protocols(NUM_CLIPS)
    parts = np.array([Split.TRAIN, Split.TEST] * 3, np.uint8)
    without_test = replace(multi, name="a", split=np.full(NUM_CLIPS, Split.TRAIN, np.uint8))
    of_cases = {
        "preferred": ([single, multi], None),
        "only": ([without_test], None),
        "second": ([without_test, replace(multi, name="b", split=parts)], "b"),
        "none": ([without_test, replace(without_test, name="b")], "a"),
    }
    for name, (tables, expected) in of_cases.items():
        make_cache(tmp_path / f"{name}.zarr", NUM_CLIPS, protocols=tables)
        assert protocol_to_name(open_cache(tmp_path / f"{name}.zarr")) == expected, name


def test_a_web_server_that_gives_no_ranges_is_read_whole(tmp_path: Path) -> None:
    """Python's own gives none."""
    path = make_cache(tmp_path / "c.zarr", NUM_CLIPS)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rows = np.arange(NUM_CLIPS)
    try:
        far = open_cache(place_of(f"http://127.0.0.1:{server.server_port}/c.zarr"))
        for name in ("instance_features", "boxes"):
            assert np.array_equal(far.read_rows(name, rows), open_cache(path).read_rows(name, rows), equal_nan=True)
    finally:
        server.shutdown()
        server.server_close()
