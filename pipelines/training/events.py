"""TensorBoard events of a run, when the `tensorboard` extra is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ifcar.pipelines.scoring.scores import Metrics


def write_events(folder: Path, history: Sequence[Mapping[str, Any]], metrics: Sequence[Metrics]) -> None:
    """Write every number of the history, and the final metrics, as scalars over optimiser steps."""
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
