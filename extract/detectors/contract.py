"""What a detector gives, and the registry of detectors.

A detector looks at each picture by itself; `ifcar.extract.two_stage` links what it finds over time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import MissingDataError
from ifcar.extract.backbones.spec import PublishedWeights
from ifcar.extract.coco import CLASSES
from ifcar.extract.datasets.detections import FrameDetections
from ifcar.registry import Registry

BACKGROUND = CLASSES[0]
Picture = NDArray[np.uint8]
"""(height, width, 3) RGB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorRequest:
    """What a detector is built from.

    Args:
        name: as it was asked for, with a variant behind a colon where the family has any.
        variant: what is behind the colon, or "".
        weights: a file or folder, or "published".
        phrases: what to look for, in words, of a detector that reads them.
        least_score: what is found with less is of no use.
        device: "cpu", "cuda", ….
        weights_dir: folder for downloads.
    """

    name: str
    variant: str
    weights: str
    phrases: tuple[str, ...]
    least_score: float
    device: str
    weights_dir: Path


class Detector(ABC):
    """A network, loaded.

    Attributes:
        classes: names of the class numbers that it gives, of which 0 is no class.
        has_masks: whether it gives a mask of each box.
        identity: SHA-256 of its weights.
        description: which weights these are, and their licence where it is known.
    """

    classes: tuple[str, ...]
    has_masks: bool = False
    identity: str
    description: str

    @abstractmethod
    def detect(self, pictures: Sequence[Picture]) -> list[FrameDetections]:
        """Return what is in each picture: boxes in its pixels, which may reach past its border.

        A picture's boxes do not depend on the others, and come in an order that depends on it alone.

        Args:
            pictures: of one size.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorFamily:
    """Detectors of one kind.

    Args:
        load: request → detector.
        summary: one line for `ifcar list detectors`.
        variants: those that a name states behind a colon; none: the name stands alone.
        published: weights that can be fetched, the default ones; None: they are a file or folder of the user's.
        reads_phrases: whether it looks for what it is told in words; if not its classes are those of its training.
        scores: that suit it, see `LinkConfig`: of a box that is linked at all, of one that is matched first, and of one
            that begins a track.
    """

    load: Callable[[DetectorRequest], Detector]
    summary: str
    variants: tuple[str, ...] = ()
    published: PublishedWeights | None = None
    reads_phrases: bool = False
    scores: tuple[float, float, float] = (0.1, 0.5, 0.6)


DETECTORS: Registry[DetectorFamily] = Registry("detector")


def existing(request: DetectorRequest, what: str) -> Path:
    """Return the path of a request's weights.

    Args:
        request: the request.
        what: is expected there, for the message.

    Raises:
        MissingDataError: nothing is there.
    """
    path = Path(request.weights).expanduser()
    if not path.exists():
        raise MissingDataError(f"{path}: no such file or folder; detector {request.name!r} expects {what}")
    return path
