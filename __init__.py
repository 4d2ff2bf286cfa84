"""ifcar: object-centric activity recognition from one cached pass of a video backbone.

The names of `__all__` are the library; each is imported when it is first asked for, so that `import ifcar` loads no
torch. docs/library.md shows them at work. Everything else may change from one version to the next.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ifcar.console import Screen as Screen
    from ifcar.errors import IfcarError as IfcarError
    from ifcar.library.caches import Cache as Cache
    from ifcar.library.caches import CachedExamples as CachedExamples
    from ifcar.library.caches import open_cache as open_cache
    from ifcar.library.runs import OpenedRun as OpenedRun
    from ifcar.library.runs import open_run as open_run
    from ifcar.pipelines.extract import extract as extract
    from ifcar.pipelines.extraction.config import ExtractConfig as ExtractConfig
    from ifcar.pipelines.fit import fit as fit
    from ifcar.pipelines.grid.config import GridConfig as GridConfig
    from ifcar.pipelines.grid.lines import SystemConfig as SystemConfig
    from ifcar.pipelines.grid.run import grid as grid
    from ifcar.pipelines.predict import predict as predict
    from ifcar.pipelines.progress import Silent as Silent
    from ifcar.pipelines.report.config import ReportConfig as ReportConfig
    from ifcar.pipelines.report.report import report as report
    from ifcar.pipelines.runs.questions import EvaluateConfig as EvaluateConfig
    from ifcar.pipelines.runs.questions import PredictConfig as PredictConfig
    from ifcar.pipelines.runs.resolve import make_run_config as make_run_config
    from ifcar.pipelines.runs.schedule import ScheduleConfig as ScheduleConfig
    from ifcar.pipelines.training.machine import MachineConfig as MachineConfig

__version__ = "0.1.0"

_PLACES = {
    "ifcar.console": ("Screen",),
    "ifcar.errors": ("IfcarError",),
    "ifcar.library.caches": ("Cache", "CachedExamples", "open_cache"),
    "ifcar.library.runs": ("OpenedRun", "open_run"),
    "ifcar.pipelines.extraction.config": ("ExtractConfig",),
    "ifcar.pipelines.fit": ("fit",),
    "ifcar.pipelines.grid.config": ("GridConfig",),
    "ifcar.pipelines.grid.lines": ("SystemConfig",),
    "ifcar.pipelines.grid.run": ("grid",),
    "ifcar.pipelines.predict": ("predict",),
    "ifcar.pipelines.progress": ("Silent",),
    "ifcar.pipelines.report.config": ("ReportConfig",),
    "ifcar.pipelines.report.report": ("report",),
    "ifcar.pipelines.runs.questions": ("EvaluateConfig", "PredictConfig"),
    "ifcar.pipelines.runs.resolve": ("make_run_config",),
    "ifcar.pipelines.runs.schedule": ("ScheduleConfig",),
    "ifcar.pipelines.training.machine": ("MachineConfig",),
}
__all__ = sorted({"extract", *(name for names in _PLACES.values() for name in names)})


def __getattr__(name: str) -> Any:
    """Import a public name. `extract` is the folder of that name, which can be called, see `ifcar.extract`."""
    if name == "extract":
        return import_module("ifcar.extract")
    for place, names in _PLACES.items():
        if name in names:
            return getattr(import_module(place), name)
    raise AttributeError(f"module 'ifcar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
