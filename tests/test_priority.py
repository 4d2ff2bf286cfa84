"""Threads that let others go first."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ifcar.priority import give_way


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux only")
def test_only_the_thread_that_gives_way_and_those_it_starts_do() -> None:
    def own_priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def priorities() -> list[int]:
        give_way()
        with ThreadPoolExecutor(1) as started:
            return [own_priority(), started.submit(own_priority).result()]

    before = own_priority()
    with ThreadPoolExecutor(1) as reader:
        assert reader.submit(priorities).result() == [19, 19]
    assert own_priority() == before
