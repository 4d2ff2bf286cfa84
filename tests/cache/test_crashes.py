import multiprocessing
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cache_cases import SPEC, block_arrays
from fixtures.processes import start_server
from write_slowly import write

from ifcar.cache.damage import DamageKind
from ifcar.cache.durable import list_files
from ifcar.cache.open import open_cache
from ifcar.cache.verify import verify_cache
from ifcar.errors import CacheDamageError

CLIPS = 256 * 5 + 40


class Writer:
    """A process of its own that writes a cache, and may kill itself."""

    def __init__(self, path: Path, kill_at: int = 0, protocol: str = "compositional") -> None:
        start_server()
        context = multiprocessing.get_context("forkserver")
        self._lines, told = context.Pipe(duplex=False)
        self.process = context.Process(target=write, args=(path, CLIPS, kill_at, protocol, told))
        self.process.start()
        told.close()

    def line(self) -> str:
        """Wait for its next line and return it; "" where it has ended."""
        try:
            return str(self._lines.recv())
        except EOFError:
            return ""

    def end(self) -> tuple[int | None, str]:
        """Wait for its end; return its exit code and the last line."""
        last = ""
        while line := self.line():
            last = line
        self.process.join()
        return self.process.exitcode, last


def run(path: Path, kill_at: int = 0, protocol: str = "compositional") -> tuple[int | None, str]:
    return Writer(path, kill_at, protocol).end()


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray[Any, Any]]:
    """All rows, as they are written."""
    return block_arrays(range(CLIPS))[0]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    path = tmp_path_factory.mktemp("whole") / "c.zarr"
    code, output = run(path)
    assert code == 0
    return path, int(output)


def assert_committed_rows_are_right(path: Path, expected: dict[str, np.ndarray[Any, Any]]) -> None:
    reader = open_cache(path)
    rows = np.flatnonzero(reader.committed_rows())
    for name in SPEC.names():
        assert np.array_equal(reader.read_rows(name, rows), expected[name][rows])
    report = verify_cache(path)
    assert {damage.kind for damage in report.damages} <= {DamageKind.STRAY}
    assert all(damage.path.endswith(".partial") for damage in report.damages)


def assert_same_files(path: Path, whole: Path) -> None:
    assert list_files(path) == list_files(whole)
    assert all((path / name).read_bytes() == (whole / name).read_bytes() for name in list_files(whole))
    assert verify_cache(path).ok
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.slow
def test_writer_killed_at_random_moments_loses_only_the_block_in_flight(
    tmp_path: Path, uninterrupted: tuple[Path, int], rows: dict[str, np.ndarray[Any, Any]]
) -> None:
    path, rng, kills = tmp_path / "c.zarr", np.random.default_rng(), 0
    for _ in range(6):
        writer = Writer(path)
        if writer.line().startswith("block"):
            time.sleep(rng.uniform(0, 0.04))
            writer.process.kill()
        kills += writer.end()[0] == -signal.SIGKILL
        assert_committed_rows_are_right(path, rows)
    assert kills
    assert run(path)[0] == 0
    assert_same_files(path, uninterrupted[0])


@pytest.mark.slow
def test_writer_killed_at_any_file_operation_ends_bit_identical(
    tmp_path: Path, uninterrupted: tuple[Path, int], rows: dict[str, np.ndarray[Any, Any]]
) -> None:
    path, operations = tmp_path / "c.zarr", uninterrupted[1]
    rng = np.random.default_rng(11)
    for kill_at in rng.integers(operations // 3, operations // 2, 3).tolist() + rng.integers(60, 250, 7).tolist():
        code, _ = run(path, kill_at)
        assert code in (0, -signal.SIGKILL)
        if path.exists():
            assert_committed_rows_are_right(path, rows)
    assert run(path)[0] == 0
    assert_same_files(path, uninterrupted[0])


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [1, 30, 70])
def test_killed_creation_leaves_no_cache_and_the_next_one_succeeds(
    tmp_path: Path, uninterrupted: tuple[Path, int], kill_at: int
) -> None:
    path = tmp_path / "c.zarr"
    assert run(path, kill_at)[0] == -signal.SIGKILL
    assert not path.exists()
    assert run(path)[0] == 0
    assert_same_files(path, uninterrupted[0])


@pytest.mark.slow
def test_killed_replacement_of_protocols_never_shows_wrong_tables(
    tmp_path: Path, uninterrupted: tuple[Path, int]
) -> None:
    path = tmp_path / "c.zarr"
    assert run(path)[0] == 0
    wanted = ["other", "compositional"]
    code, output = run(path, protocol="other")
    operations = int(output)
    assert code == 0
    kills = 0
    for part in (0.4, 0.6, 0.7, 0.8, 0.9, 0.97):
        kills += run(path, int(operations * part), wanted[1])[0] == -signal.SIGKILL
        wanted.reverse()
        try:
            assert len(open_cache(path).protocol_names()) == 2
        except CacheDamageError as error:
            assert "run the same `ifcar extract` again" in str(error)
    assert kills > 3
    assert run(path)[0] == 0
    assert_same_files(path, uninterrupted[0])
