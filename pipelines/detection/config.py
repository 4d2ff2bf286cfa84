"""The options of a detector, and those of `ifcar detect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ifcar.config_fields import Bounds, Option, check_fields
from ifcar.extract.limits import BATCH_SIZES
from ifcar.extract.subjects import SUBJECTS
from ifcar.extract.view_options import SHARE

if TYPE_CHECKING:
    from ifcar.extract.two_stage import LinkConfig

_OWN = "the detector's own"


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorConfig:
    """Which detector, what of it is kept, and how it is linked over time.

    Args:
        detector: registered name, with a variant where the family has any.
        detector_weights: a file or folder, or "published"; None: published.
        phrases: what to look for, of a detector that reads words.
        subjects: classes that are subjects; all others are objects.
        classes: the only ones that are kept; empty: all.
        detector_fps: frames a second that are looked at.
        score: see `LinkConfig`, as the next five; None takes the detector's own.
        box_overlap: above which two boxes of a class in a frame are one.
    """

    detector: Annotated[str, Option("One of `ifcar list detectors`.")]
    detector_weights: Annotated[
        Path | None, Option("The detector's file or folder; default: published ones, where there are any.")
    ] = None
    phrases: Annotated[tuple[str, ...], Option("What a detector that reads words looks for: hand,coffee cup.")] = ()
    subjects: Annotated[
        tuple[str, ...], Option("Classes that are subjects, all others are objects; default: hand,person.")
    ] = SUBJECTS
    classes: Annotated[tuple[str, ...], Option("Keep boxes of these classes alone: hand,cup.")] = ()
    detector_fps: Annotated[
        float, Option("Frames a second that the detector looks at."), Bounds(above=0, most=1000)
    ] = 12.0
    score: Annotated[float | None, Option("Boxes that score less are left out.", default=_OWN), SHARE] = None
    high_score: Annotated[
        float | None, Option("Boxes that score so much are linked to tracks before the others.", default=_OWN), SHARE
    ] = None
    new_score: Annotated[float | None, Option("A box that begins a track scores so much.", default=_OWN), SHARE] = None
    link_overlap: Annotated[float, Option("Least overlap (IoU) of a box with its track's last one."), SHARE] = 0.3
    patience: Annotated[int, Option("Frames in a row that a track may miss."), Bounds(least=0, most=10_000)] = 10
    least_boxes: Annotated[int, Option("Tracks of fewer boxes are left out."), Bounds(least=1, most=10_000)] = 3
    box_overlap: Annotated[float, Option("Overlap above which two boxes of a class are one."), SHARE] = 0.7

    def __post_init__(self) -> None:
        check_fields(self)
        self.link()

    def link(self) -> LinkConfig:
        """Return how boxes are linked, with the detector's own scores filled in.

        Raises:
            InputError: no such detector, or scores that contradict each other.
        """
        from ifcar.extract.detectors.catalog import get_detector
        from ifcar.extract.two_stage import LinkConfig

        own = get_detector(self.detector).scores
        given = (self.score, self.high_score, self.new_score)
        score, high_score, new_score = (a if b is None else b for a, b in zip(own, given, strict=True))
        return LinkConfig(
            score=score,
            high_score=high_score,
            new_score=new_score,
            link_overlap=self.link_overlap,
            patience=self.patience,
            least_boxes=self.least_boxes,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectConfig(DetectorConfig):
    """Options of `ifcar detect`.

    Args:
        videos: video files, folders of frames, or folders that hold some.
        dataset: registered name, in place of videos.
        data_root: the dataset's folder.
        out: the file of boxes.
        batch_size: pictures per forward pass.
        device: "cpu", "cuda", ….
        limit: only the first so many clips.
        overwrite: replace a file that is in the way.
    """

    videos: tuple[Path, ...] = ()
    dataset: Annotated[str | None, Option("The clips of one of `ifcar list datasets`, in place of videos.")] = None
    data_root: Annotated[Path | None, Option("The dataset's folder; default: data/DATASET.")] = None
    out: Annotated[Path, Option("The file of boxes, and what it lies beside.")] = Path("boxes.json")
    batch_size: Annotated[int, Option("Pictures per forward pass."), BATCH_SIZES] = 8
    device: Annotated[str | None, Option("cpu, cuda, cuda:1, …; default: cuda where there is one.")] = None
    limit: Annotated[int | None, Option("Only the first so many clips."), Bounds(least=1)] = None
    overwrite: Annotated[bool, Option("Replace a file of boxes that is in the way, or a part of one.")] = False
