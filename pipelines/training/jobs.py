"""A run to be made, and one that could not be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ifcar.pipelines.runs.config import RunConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run to be made.

    Args:
        config: in a grid resolved: with fingerprint, protocol digest and, where it starts from another run, that run's
            id.
        path: its folder.
    """

    config: RunConfig
    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedRun:
    """A run that could not be made.

    Args:
        path: its folder.
        reason: one line.
    """

    path: Path
    reason: str
