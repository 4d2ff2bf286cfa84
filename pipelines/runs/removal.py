"""`ifcar runs rm`: take run folders away, never one that another run needs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ifcar.cache.lock import locked
from ifcar.errors import InputError, MissingDataError
from ifcar.pipelines.folders import folder
from ifcar.pipelines.runs.config import EnsembleConfig
from ifcar.pipelines.runs.finished import finished_runs, read_config


def remove_runs(paths: Sequence[Path]) -> None:
    """Remove run folders, finished or stopped; everything is checked before the first is touched.

    Raises:
        MissingDataError: no such folder.
        InputError: a folder holds no run, or a finished run that stays was made from one of them.
        LockedError: another process trains one.
    """
    for path in paths:
        if not path.is_dir() or path.is_symlink():
            raise MissingDataError(f"{path}: no such run folder; `ifcar list runs` shows those in {folder('runs')}/")
        if not (path / "config.yaml").is_file():
            raise InputError(f"{path}: holds no run (no config.yaml); nothing is removed")
        read_config(path / "config.yaml")
    gone = {path.resolve() for path in paths}
    for run in finished_runs():
        config = run.config
        sources = map(Path, config.members) if isinstance(config, EnsembleConfig) else config.sources
        used = {source.resolve() for source in sources} & gone
        if used and run.path.resolve() not in gone:
            raise InputError(f"{min(used)}: {run.path} was made from it; remove that run too, nothing is removed")
    with ExitStack() as locks:
        for path in gone:
            locks.enter_context(locked(path))
        for path in gone:
            (path / "metrics.json").unlink(missing_ok=True)  # first: without it the rest is no finished run
            shutil.rmtree(path)
