"""Where the pixels of clips are: one source each, of the video files and folders of frames that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ifcar.counts import count_of
from ifcar.data_files import entries, subfolders
from ifcar.errors import MissingDataError
from ifcar.extract.frame_folder import has_frames


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A folder of sources.

    Args:
        folder: the folder; it need not be there.
        endings: of the video files in it, one a video, in lower case; none: it holds a folder of frames for each.
    """

    folder: Path
    endings: tuple[str, ...] = ()

    def sources(self) -> list[tuple[str, Path]]:
        """Return (name, source) of all that it holds; of files of one name the last by ending comes first."""
        if not self.endings:
            return [(path.name, path) for path in subfolders(self.folder)]
        return [(path.stem, path) for path in reversed(entries(self.folder, *self.endings))]


def find_sources(places: Sequence[Place], absent: str = "") -> tuple[dict[str, Path], list[str]]:
    """Return the source of each name, and one line for each kind of sources that are not read.

    A name's source is the first that holds something: a file with bytes, a folder with a picture. Where none does it is
    the first, whose clips fail with the reason.

    Args:
        places: where sources are, the preferred ones first.
        absent: what to say where there is none.

    Raises:
        MissingDataError: there is none, and something is to be said of that.
    """
    found: dict[str, list[Path]] = {}
    for place in places:
        for name, path in place.sources():
            found.setdefault(name, []).append(path)
    if absent and not found:
        raise MissingDataError(absent)
    doubled, empty = [], []
    for name, paths in found.items():
        if len(paths) == 1:
            continue
        filled = [path for path in paths if holds_something(path)]
        empty += [path for path in paths if filled and path not in filled]
        found[name] = filled + [path for path in paths if path not in filled]
        if len(filled) > 1:
            doubled.append((filled[0], filled[1]))
    notes = []
    if doubled:
        (read, other), count = doubled[0], count_of(len(doubled), "clip or video has", "clips or videos have")
        notes.append(f"{count} two sources, of which one is read, the first: {read}, and not {other}")
    if empty:
        count = count_of(len(empty), "source holds", "sources hold")
        notes.append(f"{count} nothing, so that another of the same name is read, the first: {empty[0]}")
    return {name: paths[0] for name, paths in found.items()}, notes


def holds_something(path: Path) -> bool:
    """Return whether a source is a file with bytes, or a folder with a picture."""
    return has_frames(path) if path.is_dir() else path.is_file() and path.stat().st_size > 0
