"""A grid file: what it may say, and the checks that need no cache."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from ifcar.cache.single import JOIN_SUFFIX
from ifcar.config_fields import Option, check_fields, path_of
from ifcar.data_files import entries
from ifcar.errors import InputError, nearest_of
from ifcar.pipelines.configs import from_plain, read_yaml
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.needs import extract_words, needed
from ifcar.pipelines.folders import folder
from ifcar.pipelines.grid.lines import ChoiceConfig, FusionConfig, SystemConfig
from ifcar.pipelines.published.tables import PublishedOn, published_table
from ifcar.pipelines.runs.schedule import ScheduleConfig

SHIPPED = Path(__file__).with_name("files")
OF_JOIN = ("cameras", "shuffled")  # what a stream says of the join, beside options of its extraction


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotConfig:
    """Train on base classes, then fine-tune on a few clips of novel ones.

    Args:
        base: protocol of the base classes.
        shots: numbers of shots; the protocols are fewshot-SHOTS and its further draws.
        train: "classifier" or "all", see `FineTuneConfig`.
        schedule: of the fine-tuning; None follows the base run's, see `ifcar.pipelines.grid.plan.tuned`.
    """

    base: str = "fewshot-base"
    shots: Annotated[
        tuple[int, ...], Option("Clips a novel class; again for more.", default="5 and 10", repeated=True)
    ] = (5, 10)
    train: Annotated[
        Literal["classifier", "all"],
        Option("What fine-tuning moves: classifier (the last layer, as published) or all."),
    ] = "classifier"
    schedule: ScheduleConfig | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class GridConfig:
    """A grid file.

    Args:
        name: short name; the grid's folder is named after it.
        title: one line over the table.
        dataset: registered name of the data that the file is meant for; None for any.
        extraction: the options of `ifcar extract` that its cache must be made with, by field of `ExtractConfig`; an
            option that is not named may be any.
        streams: the same of each stream, by name, where its cache is a join; `cameras` names those of the stream, and
            `shuffled: true` says that it must show other recordings, as in `ifcar cache join --shuffled`.
        protocols: names of the protocols; empty takes "compositional" or the only one.
        labels: the label space of each protocol; None takes its first.
        pool: put the test clips of all protocols together (leave one group out), one line a system.
        seeds: one run each.
        preset: of every head that does not say otherwise.
        schedule: of every system that does not say otherwise.
        systems: lines of the table.
        ensembles: late fusions, below them.
        choices: the best of a system's product, below those.
        few_shot: base and novel classes in place of `protocols`.
        baseline: name of the line that the others are tested against; None tests nothing.
        paired_test: "bootstrap" over clips (of mAP, which drawing clips twice lifts, the jackknife), or "mcnemar" for a
            single seed.
        costs: show the minutes and gigabytes that each line takes.
        published_table: one of `ifcar list published`, whose figures stand beside the lines that it names.
        published_on: the data behind the figures that the file itself publishes.
    """

    name: str
    title: str = ""
    dataset: str | None = None
    extraction: Mapping[str, Any] = field(default_factory=dict)
    streams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    protocols: tuple[str, ...] = ()
    labels: str | None = None
    pool: bool = False
    seeds: Annotated[tuple[int, ...], Option("Again for more runs.", "--seed", repeated=True)] = (0, 1, 2)
    preset: str = "paper"
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    systems: tuple[SystemConfig, ...] = ()
    ensembles: tuple[FusionConfig, ...] = ()
    choices: tuple[ChoiceConfig, ...] = ()
    few_shot: FewShotConfig | None = None
    baseline: str | None = None
    paired_test: Literal["bootstrap", "mcnemar"] = "bootstrap"
    costs: bool = False
    published_table: str | None = None
    published_on: PublishedOn | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise InputError(f"name is {self.name!r}; expected letters, digits, '.', '_' and '-', as for a folder")
        self.extract_config()
        if self.streams and self.extraction:
            raise InputError("streams and extraction exclude each other; each stream names its own options")
        for name in self.streams:
            self.stream_config(name)
        for what, named in (("systems", self.systems), ("seeds", self.seeds)):
            if not named:
                raise InputError(f"{what}: there are none; name at least one")
        for what, values in (("seeds", self.seeds), ("protocols", self.protocols)):
            for value, count in Counter(values).items():
                if count > 1:
                    raise InputError(f"{what}: {value!r} is named {count} times")
        if self.few_shot is not None and any(system.start or system.distil_from for system in self.systems):
            raise InputError(
                "few_shot and a system's start or distil_from exclude each other; few-shot runs start from base classes"
            )
        if self.few_shot is not None and self.protocols:
            raise InputError("protocols and few_shot exclude each other; few_shot brings its own protocols")
        if self.paired_test == "mcnemar" and len(self.seeds) > 1:
            raise InputError(f"paired_test mcnemar compares single runs, but there are {len(self.seeds)} seeds")
        figures = [*(system.published for system in self.systems), *(fusion.published for fusion in self.ensembles)]
        if self.published_table is not None:
            published_table(self.published_table)
            if self.published_on is not None or any(figures):
                raise InputError("published_table and figures of the file's own exclude each other; keep one of them")

    def extract_config(self, dataset: str = "DATASET") -> ExtractConfig:
        """Return the extraction that makes its cache, of `dataset` where the file is meant for any."""
        return needed(self.extraction, self.dataset or dataset, "extraction")

    def stream_config(self, stream: str, dataset: str = "DATASET") -> ExtractConfig:
        """Return the extraction that makes the cache of a stream."""
        where, own = f"streams {stream}", self.streams[stream]
        if not isinstance(own.get("shuffled", False), bool):
            raise InputError(f"{where}: shuffled is {own['shuffled']!r}; expected true or false")
        cameras = own.get("cameras", ())
        if not isinstance(cameras, (list, tuple)) or not all(isinstance(camera, str) for camera in cameras):
            raise InputError(f"{where}: cameras is {cameras!r}; expected a list of names, as [ego]")
        return replace(needed(self.stream_options(stream), self.dataset or dataset, where), cameras=tuple(cameras))

    def stream_options(self, stream: str) -> dict[str, Any]:
        """Return the options of `ifcar extract` that a stream's cache must be made with, by field."""
        return {name: value for name, value in self.streams[stream].items() if name not in OF_JOIN}

    def shuffled_streams(self) -> list[str]:
        """Return the streams that must show other recordings."""
        return [name for name, own in self.streams.items() if own.get("shuffled", False)]

    def cache_commands(self, dataset: str = "DATASET") -> list[list[Any]]:
        """Return the words of each command that its cache is made with."""
        if not self.streams:
            return [extract_words(self.extract_config(dataset))]
        start = self.dataset or dataset  # grids of one data set take the same caches
        caches = {name: folder("caches") / f"{start}-{name}.zarr" for name in self.streams}
        made = [extract_words(replace(self.stream_config(own, dataset), out=path)) for own, path in caches.items()]
        named = [f"{name}={path}" for name, path in caches.items()]
        shuffled = self.shuffled_streams()
        out = folder("caches") / f"{start}{'-shuffled' if shuffled else ''}{JOIN_SUFFIX}"
        options = [word for name in shuffled for word in ("--shuffled", name)]
        return [*made, ["ifcar", "cache", "join", *named, *options, "--out", out]]

    def figures(self, line: str, own: Mapping[str, float]) -> Mapping[str, float]:
        """Return the published figures of a line: the table's, or the file's own."""
        return own if self.published_table is None else published_table(self.published_table).figures(line)

    def published_data(self) -> PublishedOn | None:
        """Return the data behind the published figures, None where there are none."""
        return self.published_on if self.published_table is None else published_table(self.published_table).data


def read_grid(file: Path | str) -> GridConfig:
    """Read a grid file; a bare name stands for a shipped one.

    Raises:
        MissingDataError, InputError: it is not there, or says what it must not; the message says where.
    """
    file = path_of(file, "file")
    shipped = SHIPPED / f"{file}.yaml"
    path = shipped if not file.exists() and file.suffix == "" and shipped.is_file() else file
    if path.is_dir():
        raise InputError(f"{file}: is a folder; expected a grid file, or one of `ifcar list grids`")
    if not path.exists():
        raise InputError(f"{file}: no such file or shipped grid{nearest_of(str(file), shipped_grids())}")
    return from_plain(GridConfig, read_yaml(path), str(path))


def shipped_grids() -> list[str]:
    """Return the names of the grid files that come with ifcar."""
    return [path.stem for path in entries(SHIPPED, ".yaml")]
