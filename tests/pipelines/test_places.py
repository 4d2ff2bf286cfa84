"""Folders of caches and runs: littered by operating systems, moved, and used from elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from fixtures.litter import litter
from fixtures.something_else import write_dataset
from fixtures.videos import write_video

from ifcar.cache.open import open_cache
from ifcar.cache.verify import verify_cache
from ifcar.cli import main
from ifcar.pipelines.ensemble import ensemble
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.folders import only_cache
from ifcar.pipelines.grid.config import GridConfig, read_grid, shipped_grids
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.grid.run import run_grid
from ifcar.pipelines.listing import list_caches, list_runs
from ifcar.pipelines.predict import predict
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.gather import gather
from ifcar.pipelines.report.report import report
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.finished import open_run, read_config
from ifcar.pipelines.runs.places import located
from ifcar.pipelines.runs.questions import EvaluateConfig, PredictConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.training.machine import MachineConfig

SHORT = ScheduleConfig(kind="stretched", epochs=4, batch_size=8)
CACHE, FIRST, SECOND, FUSED, GRID = (
    Path("my caches/c d.zarr"),
    Path("runs/first"),
    Path("runs/second"),
    Path("runs/fused"),
    Path("runs/table"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a cache, two runs, their ensemble and a grid, made by relative paths and moved then."""
    folder = tmp_path_factory.mktemp("made") / "before"
    folder.mkdir()
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
            MachineConfig(processes=1),
        )
    return folder.rename(folder.with_name("after"))


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working folder."""
    folder = tmp_path / "place"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("IFCAR_CACHES", "my caches")
    return folder


@pytest.mark.slow
def test_hidden_entries_are_no_caches_runs_or_tables(place: Path) -> None:
    before = only_cache(None), list_caches(), list_runs(), gather([]), open_cache(CACHE).identity
    litter(place)
    (place / "my caches" / "empty.zarr").mkdir()
    after = only_cache(None), list_caches(), list_runs(), gather([]), open_cache(CACHE).identity
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


def as_old_runs_say(run: Path, **places: object) -> None:
    """Let a run's config name places as they were typed."""
    content = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**content, **places}))


@pytest.fixture(params=["moved", "old"])
def elsewhere(place: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another working folder, as seen from which the project is in `..`; its own cache of that name is another one."""
    if request.param == "old":
        for run in (FIRST, SECOND):
            as_old_runs_say(run, cache=str(CACHE))
        as_old_runs_say(FUSED, cache=str(CACHE), members=[str(FIRST), str(SECOND)])
    folder = place / "other"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("IFCAR_CACHES")
    options = {"dataset": "something-else", "data_root": Path("../data"), "backbone": "none", "workers": 0}
    extract(ExtractConfig(**options, out=CACHE, frames=3), Silent())  # type: ignore[arg-type]
    return Path("..")


@pytest.mark.slow
def test_a_run_finds_its_cache_and_members_from_anywhere(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = open_cache(elsewhere / CACHE).fingerprint
    assert open_cache(CACHE).fingerprint != own
    assert evaluate(elsewhere / FIRST).agrees
    for path in (FIRST, SECOND, FUSED):
        config = open_run(elsewhere / path).config
        assert open_cache(config.cache).fingerprint == own
    fused, result = open_run(elsewhere / FUSED), ensemble([elsewhere / FIRST, elsewhere / SECOND])
    assert result.run.predictions("test").logits.tolist() == fused.predictions("test").logits.tolist()
    video, boxes = video_and_boxes(elsewhere)
    found = predict(elsewhere / FUSED, video, Silent(), PredictConfig(boxes=boxes))
    assert found.answers[0].logits.shape[0] == 2
    monkeypatch.setenv("IFCAR_RUNS", "../runs")
    assert len(list_runs()[1]) == 4
    drawn = report([elsewhere / FIRST, elsewhere / SECOND, elsewhere / GRID], Silent(), ReportConfig(num_clips=2))
    assert not [note for note in drawn.notes if "no pictures" in note or "table only" in note]


def video_and_boxes(root: Path) -> tuple[Path, Path]:
    """A video for a clip of the data, and its boxes."""
    write_video(root / "100.mp4", 12, fps=12)
    return root / "100.mp4", root / "data" / "annotations.json"


@pytest.mark.slow
def test_a_config_is_trained_again_and_a_stopped_run_goes_on_from_anywhere(elsewhere: Path) -> None:
    config = read_config(elsewhere / SECOND / "config.yaml")
    assert isinstance(config, RunConfig)
    again = fit(config, Silent(), out=Path("again")).run
    assert again.predictions("test").logits.tolist() == open_run(elsewhere / SECOND).predictions("test").logits.tolist()
    (elsewhere / SECOND / "metrics.json").unlink()
    resumed = fit(config, Silent(), out=elsewhere / SECOND, resume=True).run
    assert resumed.metric("test") is not None


def test_a_run_without_its_cache_says_how_to_name_it(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CACHE.rename(tmp_path / "gone.zarr")
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(FIRST)])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and "name it with --cache" in error, error
    assert evaluate(FIRST, EvaluateConfig(cache=tmp_path / "gone.zarr")).agrees


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ("/old/place/caches/c.zarr", "caches/c.zarr"),
        ("caches/c.zarr", "caches/c.zarr"),
        ("../caches/c.zarr", "caches/c.zarr"),
        ("/elsewhere/c.zarr", "runs/c.zarr"),
        ("/nowhere/x.zarr", None),
    ],
)
def test_the_longest_part_of_a_path_that_fits_is_taken(stored: str, found: str | None, tmp_path: Path) -> None:
    home = tmp_path / "runs" / "a"
    for folder in ("caches/c.zarr", "runs/c.zarr", "runs/a"):
        (tmp_path / folder).mkdir(parents=True)
    assert located(Path(stored), home) == (Path(stored) if found is None else tmp_path / found)
