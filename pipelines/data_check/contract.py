"""What a check of a data set is, and what it is shown of a clip."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ifcar.extract.datasets.contract import Clip
from ifcar.extract.datasets.pixel_sources import holds_something
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.tracks import Tracks
from ifcar.pipelines.extraction.sources import Source
from ifcar.registry import Registry


class Severity(IntEnum):
    """What a finding does to the numbers that come out of the data."""

    NOTE = 1
    """Worth knowing: extraction is right as far as it goes."""
    FAILS = 2
    """Extraction fails the clip, and says so."""
    WRONG = 3
    """Extraction goes on, and what it stores is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A clip as extraction reads it.

    Args:
        number: its place among the clips.
        clip: what the data set lists.
        source: what its pixels are read from; None where no pixels are read.
        tracks: the boxes that are seen, a file's (`--boxes`) or the data set's, those without a slot too; none where
            they cannot be read.
        tracks_fps: the rate that their frame numbers count in; None: they are the source's.
        info: what its source holds, or what the annotations say where no pixels are read; None where that is unknown.
        annotated: (F,) frame numbers that the data set annotates, which say what part of the source is the clip.
        annotation_fps: the rate that these count in; None: they are the source's.
        failure: why extraction would fail the clip, or an empty text.
        past_end: how it reaches past its source's end, see `ifcar.extract.frame_times.past_end`.
    """

    number: int
    clip: Clip
    source: Path | None
    tracks: Tracks
    tracks_fps: float | None
    info: VideoInfo | None
    annotated: NDArray[np.int64]
    annotation_fps: float | None
    failure: str = ""
    past_end: str = ""

    def is_empty(self) -> bool:
        """Return whether there is a source, and nothing in it."""
        return self.source is not None and self.source.exists() and not holds_something(self.source)

    def has_box(self) -> NDArray[np.bool_]:
        """Return (F, M), True where a track has a box."""
        present: NDArray[np.bool_] = np.isfinite(self.tracks.boxes[..., 0])
        return present

    def corners(self) -> NDArray[np.float64]:
        """Return (F, M, 4) x1, y1, x2, y2 in shares of the picture's sides, NaN for none; no F without a size."""
        if self.info is None:
            return np.zeros((0, self.tracks.boxes.shape[1], 4))
        sides = (self.info.width, self.info.height) * 2
        return self.tracks.boxes / np.array(sides, np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a check found in a clip.

    Args:
        text: one line with the values found.
        severity: what it does to the numbers.
        amount: how bad it is among the findings of this check.
        frames: frame numbers from 0 of the boxes that show it, the worst first.
        key: what a check compares clips by, see `Check.confirm`.
    """

    text: str
    severity: Severity
    amount: float = 1.0
    frames: tuple[int, ...] = field(default_factory=tuple)
    key: str = ""


class Check(ABC):
    """One thing that is looked for in every clip. A new one is a class in a file of `checks`, which the catalog names.

    Attributes:
        name: the registered name.
        title: what was found, as a heading.
        meaning: what extraction makes of it.
        remedy: what to do.
        needs_pixels: whether it looks at sources, and is left out where none are opened.
        source: the data set, read.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    remedy: ClassVar[str]
    needs_pixels: ClassVar[bool] = False

    def __init__(self, source: Source) -> None:
        self.source = source

    @abstractmethod
    def look(self, seen: Seen) -> Finding | None:
        """Return what is found in a clip. Called in several processes, in any order: it keeps nothing."""

    def confirm(self, number: int, finding: Finding) -> Finding | None:
        """Return what a finding is beside those of the clips before; called in one process, in the clips' order."""
        return finding


CHECKS: Registry[type[Check]] = Registry("check")


def register_check(check: type[Check]) -> type[Check]:
    """Class decorator: add the check to `CHECKS` under its name."""
    return CHECKS.register(check.name, check, check.__module__)
