"""Options of the engines: what does not fit is one line and exit code 2, and who stays on one machine needs no Ray."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
from fixtures.processes import hide, run
from fixtures.something_else import write_dataset

from ifcar.cli import main
from ifcar.pipelines.engines.cluster import RayConfig
from ifcar.pipelines.extraction.config import ExtractConfig


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ifcar: ")]
    assert caught.value.code == 2 and len(lines) == 1
    return lines[0]


def extraction(tmp_path: Path) -> list[str]:
    data = write_dataset(tmp_path / "d", pixels=False)
    out = ["--out", str(tmp_path / "a.zarr"), "--workers", "0"]
    return ["extract", "--dataset", "something-else", "--data-root", str(data), "--backbone", "none", *out]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--engine spark", "--engine is 'spark'; expected one of local, ray"),
        ("--address auto", "--address auto would be ignored: it belongs to --engine ray"),
        ("--actor-cpus 2", "--actor-cpus 2 would be ignored: it belongs to --engine ray"),
        ("--engine ray --actor-cpus 0", "--actor-cpus is 0; expected at least 1"),
        ("--engine ray --address ray://head:10001", "expected auto, local or HOST:PORT"),
        ("--engine ray --address head", "expected auto, local or HOST:PORT"),
    ],
)
def test_engine_options_that_do_not_fit_are_refused(
    options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal([*extraction(tmp_path), *options.split()], capsys)


def test_address_where_no_cluster_is_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ifcar[ray]'")
    line = refusal([*extraction(tmp_path), "--engine", "ray", "--address", "127.0.0.1:1"], capsys)
    assert "no Ray cluster at --address 127.0.0.1:1" in line and "`ray start --head`" in line


def test_grid_refuses_the_address_of_a_cluster_without_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert "belongs to --engine ray" in refusal(["grid", "none.yaml", "--address", "auto"], capsys)


def test_an_address_stays_one_on_a_cluster(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from ifcar.pipelines.engines.ray_extract import RayEngine

    config = ExtractConfig(dataset="toybox", data_root=tmp_path, out=Path("s3://lab/c.zarr"))  # with one slash now
    assert str(RayEngine(RayConfig()).settle(config).out) == "s3://lab/c.zarr"


@pytest.mark.slow
def test_local_engine_never_imports_ray_and_ray_says_how_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, error = run(extraction(tmp_path / "local"), tmp_path, partial(hide, "ray"))
    assert code == 0, error
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'ifcar[ray]'" in refusal([*extraction(tmp_path / "ray"), "--engine", "ray"], capsys)
