"""`benchmarks/gpu.py`, which has minutes on a GPU and one try: it runs whole, and what goes wrong costs one row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.weights import random_weights

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PARTS = ["check", "extraction", "heads", "fleets", "full_size"]


def run_gpu(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--out", str(out), "--device", "cpu", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def content(out: Path, part: str) -> dict[str, list[dict[str, object]]]:
    return json.loads((out / f"gpu-{part}.json").read_text())


@pytest.mark.slow(seconds=40)
def test_every_part_runs_through_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a budget that no machine needs: what is checked is that rows come and agree, not when."""
    monkeypatch.setenv("BENCHMARK_WEIGHTS", str(Path(random_weights(tmp_path)).parent))
    done = run_gpu(tmp_path / "out", "--small", "--budget", "3600")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("done in ")
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == sorted(f"gpu-{part}" for part in PARTS)
    for part in PARTS:
        found = content(tmp_path / "out", part)
        assert found["ended"] == "through" and found["small"] and found["rows"]
        assert not [row for row in found["rows"] if "failed" in row or row.get("ok") is False]


@pytest.mark.slow
def test_a_part_that_outruns_its_box_is_killed_and_said_so(tmp_path: Path) -> None:
    done = run_gpu(tmp_path / "out", "--small", "--budget", "0.1", "--parts", "fleets")
    assert done.returncode == 1
    assert "fleets killed at its box's end: 0 rows" in done.stdout.splitlines()[-1]
    assert content(tmp_path / "out", "fleets")["rows"] == []


@pytest.mark.slow
def test_figures_of_a_cpu_are_not_taken_for_a_gpus(tmp_path: Path) -> None:
    done = run_gpu(tmp_path / "out")
    assert done.returncode == 2 and "--small" in done.stderr and not (tmp_path / "out").exists()


def test_rows_are_kept_one_by_one_and_a_failure_costs_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_rows import Rows

    rows = Rows(tmp_path / "gpu-x.json", "x", "cpu", small=True, ends=float("inf"))

    def kept() -> list[dict[str, object]]:
        return json.loads((tmp_path / "gpu-x.json").read_text())["rows"]

    assert rows.measure("first", lambda: {"ms": 1.5}) == {"ms": 1.5}
    assert [row["row"] for row in kept()] == ["first"]
    assert rows.measure("second", lambda: {"ms": 1 / 0}) == {}
    assert "ZeroDivisionError" in str(kept()[1]["failed"]) and kept()[1]["traceback"]
    rows.ends = 0.0
    assert rows.measure("third", lambda: {"ms": 2.5}, expected=1) == {}
    assert "ms" not in kept()[2] and "expected" in str(kept()[2]["not_begun"])
    assert not rows.end()
    assert capsys.readouterr().out.count("\n") == 3
