"""Which clips a detector looks at: videos that are named, or those of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ifcar.data_files import entries
from ifcar.errors import InputError, MissingDataError
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.frame_folder import has_frames
from ifcar.pipelines.folders import folder
from ifcar.pipelines.progress import Progress, counter

VIDEO_ENDINGS = (
    *(".avi", ".flv", ".gif", ".ivf", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenClips:
    """Clips with pixels.

    Args:
        clips: in the order of the file of boxes.
        notes: what was left out, one line each.
    """

    clips: Sequence[Clip]
    notes: Sequence[str] = ()


def clips_of_videos(paths: Sequence[Path]) -> ChosenClips:
    """Return each video as a clip that is called as its file or folder is, without the ending.

    Args:
        paths: of video files, of folders of frames 0001.jpg, …, and of folders that hold some of these.

    Raises:
        MissingDataError: nothing is there.
        InputError: a folder holds no video, or two videos have one name.
    """
    sources: dict[str, Path] = {}
    for path in paths:
        for source in _sources(path):
            name = source.name if source.is_dir() else source.stem
            if name in sources and sources[name] != source:
                raise InputError(f"{source} and {sources[name]} are both called {name!r}; rename one of them")
            sources[name] = source
    return ChosenClips(
        clips=[Clip(clip_id=name, source=source, frame_size=None) for name, source in sources.items()],
    )


def _sources(path: Path) -> list[Path]:
    if not path.exists():
        raise MissingDataError(f"{path}: no such file or folder; expected a video, or a folder of frames or of videos")
    if not path.is_dir() or has_frames(path):
        return [path]
    found = [own for own in entries(path) if own.suffix.lower() in VIDEO_ENDINGS or (own.is_dir() and has_frames(own))]
    if not found:
        raise InputError(f"{path}: holds no video and no folder of frames; expected NAME.mp4 or NAME/0001.jpg, …")
    return found


def clips_of_dataset(name: str, root: Path | None, progress: Progress) -> ChosenClips:
    """Return the clips of a dataset whose pixels are there.

    Raises:
        InputError, MissingDataError: no such dataset, or its files are not usable.
    """
    dataset_type = DATASETS.get(name)
    dataset = dataset_type(root or folder("data") / dataset_type.default_root)
    dataset.prepare(counter(progress, f"rendering {name}"))
    listing = dataset.listing(needs_pixels=True)
    if not listing.clips:
        first = f" The first problem: {listing.problems[0]}" if listing.problems else ""
        raise InputError(f"{dataset.root}: no clip has pixels.{first}")
    return ChosenClips(clips=listing.clips, notes=[*listing.notes, *listing.problems])
