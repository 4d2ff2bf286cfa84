"""What is asked of a cache: the options of `ifcar cache verify`, `export` and `show`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

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


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Where a cache is written as one file.

    Args:
        out: the file; default: the cache's name with .h5.
        format: of the file.
    """

    out: Annotated[Path | None, Option("The file; default: the cache's name with .h5.")] = None
    format: Annotated[Literal["hdf5"], Option("hdf5.")] = "hdf5"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShowConfig:
    """Which clips of a cache are drawn, and where.

    Args:
        clip: their ids; empty for the first ten.
        out: folder for the pictures.
        data_root: the dataset's folder, when it is not at its default place.
    """

    clip: Annotated[tuple[str, ...], Option("Clip to draw; again for more; default: ten.", repeated=True)] = ()
    out: Annotated[Path, Option("Folder for the pictures.")] = Path("pictures")
    data_root: Annotated[Path | None, Option("The dataset's folder; default: data/DATASET.")] = None

    def __post_init__(self) -> None:
        check_fields(self)
