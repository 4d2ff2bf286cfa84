"""The options of `ifcar report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ifcar.config_fields import Bounds, Option, check_fields


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """What a report shows, and where it goes.

    Args:
        compare: name of system A.
        baseline: name of system B.
        protocol: the one that the figures show; default: that of each table's first row.
        out: the report's folder; figures of an earlier report in it are replaced.
        num_clips: clips whose frames are in the page itself, at most, for each comparison; 0 leaves clips out.
        num_pictures: further clips whose frames lie beside the page, at most; the others show their boxes alone.
        data_root: the dataset's folder, when it is not at its default place.
        cache: the runs' cache, when it is no longer where they were trained from.
    """

    compare: Annotated[str | None, Option("System A of the figures; default: the table's best.")] = None
    baseline: Annotated[
        str | None,
        Option(
            "System B, which A is compared with; default: the table's baseline, or the best simple system.", "--with"
        ),
    ] = None
    protocol: Annotated[str | None, Option("Protocol of the figures; default: the table's first.")] = None
    out: Annotated[Path, Option("Folder of the report.")] = Path("report")
    num_clips: Annotated[
        int, Option("Clips whose frames are in the page itself; 0 leaves clips out.", "--clips"), Bounds(least=0)
    ] = 24
    num_pictures: Annotated[
        int,
        Option("Further clips whose frames lie in OUT/clips/; the others show boxes alone.", "--pictures"),
        Bounds(least=0),
    ] = 1000
    data_root: Annotated[Path | None, Option("The dataset's folder, for the frames; default: data/DATASET.")] = None
    cache: Annotated[Path | None, Option("The runs' cache, if moved; default: where they were trained from.")] = None

    def __post_init__(self) -> None:
        check_fields(self)
