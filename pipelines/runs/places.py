"""Where what a run names lies now: files keep absolute paths, and are found again after a move, or by an old run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ifcar.cache.addresses import place_of
from ifcar.cache.joined import JoinedReader
from ifcar.cache.layout import read_manifest
from ifcar.cache.open import open_cache
from ifcar.cache.reader import CacheReader
from ifcar.errors import IfcarError, MissingDataError
from ifcar.extract.weights import is_file_name
from ifcar.pipelines.runs.config import EnsembleConfig, RunConfig

NOWHERE = Path()


def located(stored: Path, home: Path, fits: Callable[[Path], bool] = Path.exists) -> Path:
    """Return where a path that a file names is.

    That is as the file says where it fits, seen from the working folder. Else its last parts are tried in the file's
    folder and above, as many parts as possible first: `/old/caches/c.zarr`, named in `/new/runs/a`, is
    `/new/caches/c.zarr`. A path that fits nowhere is returned as it is.

    Args:
        stored: the path that the file names.
        home: the file's folder.
        fits: whether a path is the one that is meant.
    """
    return next(filter(fits, _places(stored, home)), stored)


def _places(stored: Path, home: Path) -> Iterator[Path]:
    yield stored
    parts = [part for part in stored.parts if part not in (stored.anchor, "..")]
    folders = [home.absolute(), *home.absolute().parents]
    for start in range(len(parts)):
        for folder in folders:
            yield folder.joinpath(*parts[start:])


def located_cache(stored: Path, home: Path, fingerprint: str) -> Path:
    """Return where the cache of this fingerprint is, see `located`; an empty fingerprint is any cache's."""
    return located(stored, home, lambda path: _holds(path, fingerprint))


def _holds(path: Path, fingerprint: str) -> bool:
    if not fingerprint or not path.is_dir():
        return path.exists()
    try:
        return read_manifest(path).fingerprint == fingerprint
    except IfcarError:
        return False


def open_its_cache(cache: Path, whose: object, streams: Sequence[str] | None = None) -> CacheReader:
    """Open the cache that a run or config names, of a join these streams alone.

    Raises:
        MissingDataError: there is none; it says `--cache`.
    """
    cache = place_of(cache)
    if not cache.exists():
        raise MissingDataError(
            f"{whose}: there is no cache at {cache}; name it with --cache, or make it with `ifcar extract`"
        )
    return open_cache(cache) if streams is None else JoinedReader(cache, streams)


def absolute_places(config: RunConfig | EnsembleConfig) -> RunConfig | EnsembleConfig:
    """Return a config that names every place from the root."""
    return _with_places(config, lambda path, _: path.absolute())


def located_places(config: RunConfig | EnsembleConfig, home: Path) -> RunConfig | EnsembleConfig:
    """Return a config, read in the folder `home`, that names every place where it is now."""
    return _with_places(
        config,
        lambda path, fingerprint: (
            located(path, home) if fingerprint is None else located_cache(path, home, fingerprint)
        ),
    )


def _with_places(
    config: RunConfig | EnsembleConfig, place: Callable[[Path, str | None], Path]
) -> RunConfig | EnsembleConfig:
    """Return a config with each path replaced by `place(path, fingerprint)`; only a cache has a fingerprint."""
    if config.cache != NOWHERE:
        config = replace(config, cache=place(place_of(config.cache), config.fingerprint))
    if isinstance(config, EnsembleConfig):
        return replace(config, members=tuple(str(place(Path(member), None)) for member in config.members))
    if config.fine_tune is not None:
        config = replace(config, fine_tune=replace(config.fine_tune, base=place(config.fine_tune.base, None)))
    if config.distil_from is not None:
        runs = tuple(place(run, None) for run in config.distil_from.runs)
        config = replace(config, distil_from=replace(config.distil_from, runs=runs))
    if config.live is None:
        return config
    live, data = config.live, config.live.data
    if live.base is not None:
        live = replace(live, base=place(live.base, None))
    if data.data_root is not None:
        data = replace(data, data_root=place(data.data_root, None))
    if data.weights and data.backbone and is_file_name(data.weights, data.backbone):
        data = replace(data, weights=str(place(Path(data.weights).expanduser(), None)))
    return replace(config, live=replace(live, data=data))
