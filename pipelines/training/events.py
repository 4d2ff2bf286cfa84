"""What a finished training leaves in its run's folder besides weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ifcar.pipelines.runs.finished import write_history, write_results
from ifcar.pipelines.scoring.scores import Metrics, Predictions, measure


def write_outcome(
    path: Path, history: Sequence[Mapping[str, Any]], predictions: Sequence[Predictions], *, seed: int, started: float
) -> None:
    """Measure the predictions and write history, TensorBoard events, predictions and, last, metrics.

    Args:
        path: the run's folder.
        history: one record a round.
        predictions: of each part.
        seed: of the run.
        started: when the run began, as `time.perf_counter` said.
    """
    metrics = [measure(part, seed=seed, started=started) for part in predictions]
    write_history(path, history)
    _write_events(path / "events", history, metrics)
    write_results(path, predictions, metrics)


def _write_events(folder: Path, history: Sequence[Mapping[str, Any]], metrics: Sequence[Metrics]) -> None:
    """Write every number of the history, and the final metrics, as scalars over optimiser steps, with TensorBoard."""
    if find_spec("tensorboard") is None:
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for record in history:
            for name, value in record.items():
                if isinstance(value, int | float) and name not in ("epoch", "step", "fleet"):
                    writer.add_scalar(f"{record['phase']}/{name}", value, record["step"])
        last = history[-1]["step"] if history else 0
        for m in metrics:
            for key, value in m.measures().items():
                writer.add_scalar(f"final/{m.split}_{key}", value, last)
