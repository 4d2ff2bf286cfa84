"""`ifcar demo`: the whole way on generated videos, narrow enough for a laptop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ifcar.pipelines.extract import ExtractResult, extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.folders import folder
from ifcar.pipelines.grid.config import read_grid
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.grid.run import GridResult, run_grid
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.report import ReportResult, report
from ifcar.pipelines.training.machine import MachineConfig

GRID = Path("demo")
NOTE = (
    "Preset small: 64-wide streams, 112-pixel crops, one 7×7-max-pooled vector an instance. The figures compare heads; "
    "they say nothing about the papers' accuracies."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """What the demo made."""

    extraction: ExtractResult
    grid: GridResult
    report: ReportResult


def demo(progress: Progress, machine: MachineConfig = MachineConfig()) -> DemoResult:
    """Render toybox, extract it, train the grid `demo`, and report.

    Interrupted and run again, it goes on where it was: finished blocks and runs are kept, stopped runs resumed.
    """
    progress.say(NOTE)
    cache = folder("caches") / "demo.zarr"
    extraction = extract(ExtractConfig(dataset="toybox", pooled="7-max", out=cache), progress)
    grid = run_grid(plan_grid(read_grid(GRID), cache), progress, machine)
    page = report([grid.folder], progress, ReportConfig())
    return DemoResult(extraction=extraction, grid=grid, report=page)
