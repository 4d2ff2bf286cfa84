"""The options of `ifcar data check` beside those of extraction that decide what is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ifcar.config_fields import Bounds, Option, check_fields
from ifcar.pipelines.folders import file_name

OF_EXTRACTION = (
    "dataset",
    "data_root",
    "subjects",
    "boxes",
    "frames",
    "instances",
    "sampling",
    "sampling_fps",
    "sampling_rates",
    "workers",
)
"""The options of extraction that a check has too: they decide what is read, and by how many processes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataCheckConfig:
    """How many clips are looked at and drawn, and where the page is written.

    Args:
        out: the page; default: data-check-DATASET.html.
        limit: look at the first so many clips alone.
        sample: clips to look at, drawn at random of those; None: all.
        seed: of the clips that are looked at and drawn at random.
        drawn: clips that are drawn of the worst, and as many at random.
        annotations_only: open no pixels, as `extract --backbone none` does not.
    """

    out: Annotated[Path | None, Option("The page; default: data-check-DATASET.html.")] = None
    limit: Annotated[int | None, Option("Look at the first so many clips alone."), Bounds(least=1)] = None
    sample: Annotated[int | None, Option("Look at so many clips, drawn at random; default: all."), Bounds(least=1)] = (
        None
    )
    seed: Annotated[int, Option("Of what is drawn at random.")] = 0
    drawn: Annotated[
        int, Option("Clips drawn of the worst, and as many at random; 0: none."), Bounds(least=0, most=200)
    ] = 12
    annotations_only: Annotated[bool, Option("Open no videos and pictures, as `extract --backbone none` does not.")] = (
        False
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def page(self, dataset: str) -> Path:
        """Return where the page is to be."""
        return self.out or Path(f"data-check-{file_name(dataset)}.html")
