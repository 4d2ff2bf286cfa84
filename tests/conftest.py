"""One thread for torch, here and in processes that tests start: networks are so small that a second one only waits.
Freed memory is kept, as `ifcar` keeps it: the kernel took a fifth of a network's time to clear fresh pages.

Temporary folders lie in memory where it has room: every block that a cache commits waits for the disk some 20 times,
which took longer than all of the block's work. A test's folder goes with it unless it failed.

Files whose slow tests take longest go first, so that no process is left alone with one of them (pytest-xdist hands out
whole files in this order). A slow test counts for one second, or for what its mark states: slow(seconds=60).

The server that processes are forks of begins before the first test, lest a grid begins one that has read less.

What was imported to collect the tests stays to the end: Python's search for unused cycles passes it by.
"""

import gc
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch
from fixtures.browser import browser  # noqa: F401  (a fixture)

from ifcar.heap import keep_freed_memory
from ifcar.pipelines.feed.memory import free_bytes

IN_MEMORY, ROOM = Path("/dev/shm"), 8 * 2**30

torch.set_num_threads(1)
keep_freed_memory()
# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("ifcar", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("ifcar")

if os.access(IN_MEMORY, os.W_OK) and min(shutil.disk_usage(IN_MEMORY).free, free_bytes()) > ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seconds: Counter[Path] = Counter()
    for item in items:
        mark = item.get_closest_marker("slow")
        seconds[item.path] += 0 if mark is None else mark.kwargs.get("seconds", 1)
    items.sort(key=lambda item: -seconds[item.path])


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _server() -> None:
    if processes := sys.modules.get("fixtures.processes"):
        processes.start_server()
