"""A finished run as notebooks and scripts use it: its head, its predictions, its scores."""

from __future__ import annotations

from pathlib import Path

from ifcar.config_fields import path_of
from ifcar.heads.contract import Head
from ifcar.pipelines.evaluate import Evaluation, evaluate
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.runs.finished import open_run as open_finished
from ifcar.pipelines.runs.heads import trained_head
from ifcar.pipelines.runs.questions import EvaluateConfig
from ifcar.pipelines.runs.trained import own_config


class OpenedRun(Run):
    """A finished run; see `Run` for its config, its metrics and `predictions(split)`."""

    def head(self) -> Head:
        """Return the head with the run's weights, on the CPU and in evaluation mode; its cache is not needed.

        Raises:
            InputError: an ensemble, which has no weights of its own; or the weights are damaged.
        """
        data = self.data()
        return trained_head(own_config(self), self.path, data.spec, len(data.classes))

    def score(self, cache: Path | str | None = None, options: EvaluateConfig | None = None) -> Evaluation:
        """Score the test clips again from the weights, as `ifcar evaluate` does.

        Args:
            cache: where the run's cache is, when it was moved.
            options: which labels and views, and how they are pooled; not together with `cache`.

        Raises:
            MissingDataError, InputError: the run or the options cannot be used.
            CacheMismatchError: the cache is not the one that the run was trained from.
        """
        if cache is not None and options is not None:
            raise ValueError("give the cache alone, or as a field of the options")
        own = EvaluateConfig(cache=None if cache is None else path_of(cache, "cache")) if options is None else options
        return evaluate(self.path, own)

    def __repr__(self) -> str:
        on = f" on {self.config.protocol}" if isinstance(self.config, RunConfig) else ""
        measured = [
            f"{m.split} {key} {100 * value:.1f} % (n = {m.n})"
            for m in self.metrics
            for key, value in m.measures().items()
        ]
        return f"<run {self.path}: {self.config.head}{on}; {', '.join(measured)}>"


def open_run(path: Path | str) -> OpenedRun:
    """Open a finished run.

    Raises:
        MissingDataError: no such folder, or the run is not finished.
        InputError: a file in it is damaged.
    """
    run = open_finished(path_of(path, "path"))
    return OpenedRun(path=run.path, config=run.config, metrics=run.metrics)
