"""What is asked of finished runs: the options of `ifcar evaluate`, `predict` and `ensemble`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ifcar.config_fields import Option, check_fields
from ifcar.devices import Device
from ifcar.errors import InputError
from ifcar.pipelines.scoring.pooling import Pool


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """How a run's test clips are scored again.

    Args:
        cache: where its cache is, when that was moved.
        labels: another label space of its protocol with the same classes; default: the one that it learned.
        stream: of a run from several caches the one that answers, whose cache alone is opened; default: the first.
        pool: how the views of a clip become one score, see `ifcar.pipelines.scoring.pooling.pool_views`; None: as when
            the run was scored first.
        views: how many plain views of a clip to test, see `ifcar.pipelines.feed.examples.spread_views`; None takes all.
        detections: file to write the scored boxes to, see `ifcar.pipelines.scoring.detections`.
        device: default: cuda where there is one.
    """

    cache: Annotated[Path | None, Option("The run's cache, when it was moved.")] = None
    labels: Annotated[
        str | None, Option("Another label space of the same classes to score; default: the one learned.")
    ] = None
    stream: Annotated[
        str | None, Option("Of a run from joined caches the stream that answers, by itself; default: the first.")
    ] = None
    pool: Annotated[
        Pool | None, Option("Over a clip's views: mean of logits, or max or sum of scores; default: as the run did.")
    ] = None
    views: Annotated[int | None, Option("Plain views of a clip to test, spread over time and rates; default: all.")] = (
        None
    )
    detections: Annotated[Path | None, Option("Write the scored boxes there, as AVA's evaluation reads them.")] = None
    device: Device = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictConfig:
    """What a run is told of a new video.

    Args:
        boxes: a file in a form of `ifcar.extract.datasets.box_files`, or a clip's list of Something-Else records, or a
            folder with a file a picture; None: they are found by a detector, or none are read.
        clip: ID in the boxes file; default: the video's name, or the only one.
        labels: the label space, of those that the run learned; default: the first.
        stream: of a run from joined caches the one that the video is; its backbone alone is built. Default: the first.
        weights: the backbone's, as `ifcar extract` takes them; they must be those that the run was trained on.
            Default: random ones are made again, those of a fine-tuned run are found in its folder or in one beside the
            run's, others are the published ones.
        top: how many classes to return; default: 5, or all when there are fewer.
        device: default: cuda where there is one.
    """

    boxes: Annotated[
        Path | None,
        Option(
            "COCO, CVAT, MOT, YOLO, VIA, Pascal VOC, CSV or Something-Else's records (docs/datasets.md); default: a "
            "detector's, where the run reads boxes."
        ),
    ] = None
    clip: Annotated[str | None, Option("ID in the boxes file; default: the video's name, or the only one.")] = None
    labels: Annotated[str | None, Option("Label space, of those that the run learned; default: the first.")] = None
    stream: Annotated[
        str | None, Option("Of a run from joined caches the stream that the video is; default: the first it learned.")
    ] = None
    weights: Annotated[
        str | None,
        Option(
            "The backbone's weights, as `ifcar extract` takes them.", default="the run's own, found by their SHA-256"
        ),
    ] = None
    top: Annotated[int | None, Option("Number of classes to print; default: 5.")] = None
    device: Device = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionWeights:
    """How much each run of an ensemble counts.

    Args:
        weights: one number a run with commas between, "held-out", or None for equal ones.
    """

    weights: Annotated[str | None, Option("One number a run, comma-separated, or held-out; default: equal.")] = None

    @property
    def shares(self) -> list[float] | Literal["held_out"] | None:
        """As `ifcar.pipelines.ensemble.ensemble` takes them. Raises InputError when they are no numbers."""
        if self.weights is None:
            return None
        if self.weights in ("held-out", "held_out"):
            return "held_out"
        try:
            return [float(part) for part in self.weights.split(",")]
        except ValueError:
            found = f"--weights is {self.weights!r}"
            raise InputError(f"{found}; expected numbers such as 0.4,0.6, or held-out") from None
