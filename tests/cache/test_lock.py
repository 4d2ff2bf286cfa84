"""One writer at a time: real processes, real kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ifcar.cache.lock import lock_path, locked
from ifcar.errors import LockedError

HOLD = """
import sys, time
from pathlib import Path
from ifcar.cache.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def hold_elsewhere(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_second_writer_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    process = hold_elsewhere(path)
    try:
        with pytest.raises(LockedError) as caught, locked(path):
            pass
        message = str(caught.value)
        assert f"process {process.pid} on {os.uname().nodename} since 20" in message and str(path) in message
        with locked(tmp_path / "b.zarr"):
            pass
    finally:
        process.kill()
        process.wait()


def test_lock_of_a_killed_holder_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run"
    process = hold_elsewhere(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lock_path(path).exists()
    with locked(path):
        assert f'"process": {os.getpid()}' in lock_path(path).read_text()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_worker_that_outlives_its_killed_parent_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run"
    code = HOLD.replace('print("held"', 'import os; child = os.fork() or time.sleep(600)\n    print("held"')
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    process.kill()
    process.wait()
    try:
        with locked(path):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)


COUNT = """
import sys
from pathlib import Path
from ifcar.cache.lock import locked
from ifcar.errors import LockedError
path, counter, done = Path(sys.argv[1]), Path(sys.argv[2]), 0
while done < 100:
    try:
        with locked(path):
            counter.write_text(str(int(counter.read_text()) + 1))
            done += 1
    except LockedError:
        continue
"""


def test_racing_processes_never_hold_it_together(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    racers = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path / "run"), str(counter)]) for _ in range(3)]
    assert [racer.wait(timeout=120) for racer in racers] == [0, 0, 0]
    assert counter.read_text() == "300"
