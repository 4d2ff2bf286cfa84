"""Runs of one system: they differ in the seed only."""

from __future__ import annotations

from collections.abc import Sequence

from ifcar.errors import InputError
from ifcar.pipelines.runs.config import RunConfig, without_seed
from ifcar.pipelines.runs.finished import Run, finished_runs
from ifcar.pipelines.runs.trained import own_config


def other_seeds(run: Run, known: Sequence[Run]) -> list[Run]:
    """Return the finished runs beside a run that differ from it, and from those known, in the seed only."""
    system, seeds = without_seed(own_config(run)), {own_config(other).seed for other in known}
    found: dict[int, Run] = {}
    for other in finished_runs(run.path.absolute().parent):
        config = other.config
        if isinstance(config, RunConfig) and config.seed not in seeds and without_seed(config) == system:
            found.setdefault(config.seed, other)
    return [found[seed] for seed in sorted(found)]


def check_one_system(runs: Sequence[Run]) -> None:
    """Refuse runs that differ in more than the seed, or that have a seed twice."""
    first = without_seed(own_config(runs[0]))
    for place, run in enumerate(runs):
        config = without_seed(own_config(run))
        keys = [key for key in {**first, **config} if first.get(key) != config.get(key)]
        if keys:
            raise InputError(
                f"{run.path}: has another {', '.join(keys)} than {runs[0].path}; a diagnosis is of runs that differ in "
                "the seed only, so diagnose them one by one"
            )
        for other in runs[:place]:
            if own_config(other).seed == own_config(run).seed:
                raise InputError(f"{run.path}: has the seed of {other.path}; name one of them")
