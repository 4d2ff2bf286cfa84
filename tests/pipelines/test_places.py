"""Folders of caches and runs: littered by operating systems."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fixtures.litter import litter
from fixtures.something_else import write_dataset

from ifcar.cache.reader import open_cache
from ifcar.cache.verify import verify_cache
from ifcar.pipelines.ensemble import ensemble
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.sources import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.folders import only_cache
from ifcar.pipelines.grid.config import GridConfig, SystemConfig, read_grid, shipped_grids
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.grid.run import run_grid
from ifcar.pipelines.listing import list_caches, list_runs
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.report.gather import gather
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.training.schedule import ScheduleConfig

SHORT = ScheduleConfig(kind="stretched", min_steps=4, batch_size=8)
CACHE, FIRST, SECOND, FUSED, GRID = (
    Path("my caches/c d.zarr"),
    Path("runs/first"),
    Path("runs/second"),
    Path("runs/fused"),
    Path("runs/table"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a cache, two runs, their ensemble and a grid, all made by relative paths."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        root = write_dataset(Path("data"), num_clips=16, pixels=False)
        extract(
            ExtractConfig(
                dataset="something-else", data_root=root, out=CACHE, backbone="none", workers=0, instances=3, frames=4
            ),
            Silent(),
        )
        for path, head in ((FIRST, "base"), (SECOND, "sfi")):
            fit(make_run_config(head, CACHE, streams="layout", preset="small", schedule=SHORT), Silent(), out=path)
        ensemble([FIRST, SECOND], out=FUSED)
        systems = (SystemConfig(name="SFI", head="sfi", streams="layout", preset="small"),)
        run_grid(
            plan_grid(GridConfig(name="table", seeds=(0,), schedule=SHORT, systems=systems), CACHE),
            Silent(),
            processes=1,
        )
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working folder, and whose original is out of reach."""
    folder = tmp_path / "place"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("IFCAR_CACHES", "my caches")
    return folder


def test_hidden_entries_are_no_caches_runs_or_tables(place: Path) -> None:
    before = only_cache(None), list_caches(), list_runs(), [g.folder for g in gather([])], open_cache(CACHE).identity
    litter(place)
    (place / "my caches" / "empty.zarr").mkdir()
    after = only_cache(None), list_caches(), list_runs(), [g.folder for g in gather([])], open_cache(CACHE).identity
    assert after == before
    assert verify_cache(CACHE).damages == ()
    assert evaluate(FIRST).agrees


def test_hidden_files_are_no_shipped_grids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ifcar.pipelines.grid import config

    names = shipped_grids()
    shutil.copytree(config.SHIPPED, tmp_path / "files")
    litter(tmp_path / "files")
    monkeypatch.setattr(config, "SHIPPED", tmp_path / "files")
    assert shipped_grids() == names and [read_grid(Path(name)).systems for name in names]
