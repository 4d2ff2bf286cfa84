"""The options of computing rows of a cache again, `ifcar cache verify --recompute`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ifcar.config_fields import Bounds, Option, check_fields


@dataclass(frozen=True, kw_only=True, slots=True)
class RecomputeConfig:
    """Which rows are computed again, and from what.

    Args:
        rows: how many, drawn at random among those that are done.
        seed: of the draw.
        data_root: the dataset's folder.
        weights: the backbone's.
        boxes: the file of boxes, of a cache that was made with one.
        device: where the backbone runs.
    """

    rows: Annotated[
        int,
        Option("Decode so many rows again, drawn at random, and run the backbone on them.", "--recompute"),
        Bounds(least=1),
    ]
    seed: Annotated[int, Option("Of the draw of rows."), Bounds(least=0)] = 0
    data_root: Annotated[Path | None, Option("The dataset's folder; default: data/DATASET.")] = None
    weights: Annotated[
        str | None, Option("The backbone's; needed where the cache's are neither random nor published.")
    ] = None
    boxes: Annotated[Path | None, Option("The file of boxes that the cache was made with.")] = None
    device: Annotated[str | None, Option("cpu, cuda, cuda:1, …; default: cuda where there is one.")] = None

    def __post_init__(self) -> None:
        check_fields(self)
