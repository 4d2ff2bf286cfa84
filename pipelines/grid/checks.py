"""What a cache must be for a grid: made as its file asks, with labels to measure, and with all that its heads read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.streams import stream_names, stream_spec
from ifcar.errors import CacheMismatchError, InputError, nearest_of
from ifcar.pipelines.extraction.needs import asked_for, described, extract_words, unmet
from ifcar.pipelines.feed.boxes import check_boxes
from ifcar.pipelines.feed.examples import Examples
from ifcar.pipelines.folders import folder
from ifcar.pipelines.grid.config import GridConfig
from ifcar.pipelines.grid.run_configs import head_without_memory
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.heads import keys_of
from ifcar.pipelines.runs.resolve import head_arrays
from ifcar.shell_words import command


def check_extraction(config: GridConfig, reader: CacheReader, dataset: str) -> None:
    """Refuse a cache that was extracted otherwise than the grid asks, or a join of other streams."""
    if config.streams:
        _check_streams(config, reader, dataset)
        return
    wanted = config.extract_config(dataset)
    names = unmet(wanted, config.extraction, reader.identity, reader.spec)
    if names:
        made = command(*extract_words(replace(wanted, out=folder("caches") / f"{config.name}.zarr")))
        raise CacheMismatchError(
            f"{reader.path}: this cache has {described(names, reader.identity, reader.spec)}; {config.name} needs "
            f"{asked_for(wanted, names)}: make one with {made} and name it with --cache"
        )


def _check_streams(config: GridConfig, reader: CacheReader, dataset: str) -> None:
    made = "; ".join(command(*words) for words in config.cache_commands(dataset))
    there = {name: stream_spec(reader.spec, name) for name in stream_names(reader.spec.names())}
    for name in config.streams:
        if name not in there:
            raise CacheMismatchError(f"{reader.path}: no stream {name!r}; {config.name} needs a join made with {made}")
        _check_shown(config, reader, name, made)
        wanted, asked = config.stream_config(name, dataset), config.stream_options(name)
        names = unmet(wanted, asked, reader.identity_of(name), there[name])
        if names:
            has = described(names, reader.identity_of(name), there[name])
            raise CacheMismatchError(
                f"{reader.path}: stream {name!r} has {has}; {config.name} needs {asked_for(wanted, names)}: make it "
                f"with {made}"
            )


def _check_shown(config: GridConfig, reader: CacheReader, stream: str, made: str) -> None:
    """Refuse a stream that takes other cameras than are asked for, or shows other recordings where it must not.

    A camera that the stream's cache does not have is passed over: fewer may have filmed.
    """
    asked, taken = {*config.stream_config(stream).cameras}, reader.cameras_of(stream)
    if asked and taken != asked & reader.cameras_behind(stream):
        raise CacheMismatchError(
            f"{reader.path}: stream {stream!r} takes the cameras {', '.join(sorted(taken))}; {config.name} needs "
            f"{', '.join(sorted(asked))}: make the join with {made}"
        )
    ways = {True: "the recordings of other segments (--shuffled)", False: "its own recordings"}
    found, wanted = (stream in own.shuffled_streams() for own in (reader, config))
    if found != wanted:
        raise CacheMismatchError(
            f"{reader.path}: stream {stream!r} shows {ways[found]}; {config.name} needs {ways[wanted]}: make the join "
            f"with {made}"
        )


def check_feedable(
    config: RunConfig, reader: CacheReader, parts: Sequence[Sequence[Examples]], tasks: Sequence[str]
) -> None:
    """Build the head, which says what the cache lacks, and check its parts, tasks and boxes."""
    head = head_without_memory(config, reader)
    known = [task.name for task in head.tasks if task.name]
    for name in tasks:
        if name not in known:
            raise InputError(f"tasks names {name!r}{nearest_of(name, known)}")
    for part in () if config.fine_tune is None else config.fine_tune.parts:
        keys_of(part, head.state_dict())
    reads = head_arrays(config)
    for trained, tested in parts:
        check_boxes(reader, config.head, reads, trained, tested)


def check_measurable(parts: Sequence[Examples], table: ProtocolTable, reader: CacheReader) -> None:
    """Refuse a protocol with a part in which no clip has a label."""
    for part in parts:
        if not part.labels(len(table.labels.classes)).any():
            raise InputError(
                f"{reader.path}: none of the {len(part)} {part.name} clips of protocol {table.name!r} has a label, so "
                "that systems have nothing to be compared by; check the annotations and the splits"
            )
