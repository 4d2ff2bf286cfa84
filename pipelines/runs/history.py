"""A run's history.jsonl: one record a round of training."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ifcar.errors import InputError
from ifcar.text_files import read_text

History = Sequence[Mapping[str, Any]]


def read_history(run: Path) -> History:
    """Return a run's history, empty where it has none (an ensemble). Raises InputError when it is damaged."""
    path = run / "history.jsonl"
    if not path.is_file():
        return []
    try:
        records = [json.loads(line) for line in read_text(path).splitlines()]
        return [{"phase": "fit", **record, "step": int(record["step"])} for record in records]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); train the run again") from error


def seconds_of(history: History, phase: str) -> float:
    """Return how long a phase has taken so far, 0 before its first round is over."""
    return max((float(record["seconds"]) for record in history if record.get("phase") == phase), default=0.0)


def training_seconds(history: History) -> float | None:
    """Return the wall time of a run's training, of a fleet its share: the time divided by the number of runs.

    Returns:
        None where the history does not say it: there is none, an earlier version wrote it, or the clock began anew
        within a phase, as it did when a run of an earlier version went on.
    """
    total = 0.0
    for _, records in itertools.groupby(history, key=lambda record: record["phase"]):
        own = list(records)
        if not all({"seconds", "fleet"} <= record.keys() for record in own):
            return None
        seconds = [float(record["seconds"]) for record in own]
        if seconds != sorted(seconds):
            return None
        total += seconds[-1] / int(own[-1]["fleet"])
    return total if history else None
