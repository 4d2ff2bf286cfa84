"""What both versions of Something-Something share: official lists, videos by their id, no boxes.

A clip is a whole video of the lists; those of the test list have no published labels and are in no part of the
protocol.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from ifcar.counts import count_of
from ifcar.errors import InputError
from ifcar.extract.datasets.contract import Clip, Dataset, Listing, Progress
from ifcar.extract.datasets.pixel_sources import Place, find_sources
from ifcar.extract.tracks import Tracks

VIDEO_ENDINGS = (".webm", ".mp4")
PROTOCOL = "official"


class SomethingSomething(Dataset):
    """Official lists and pixels under one folder.

    Attributes:
        pixels: folder of the pixels below the data set's own.
        lists: files that must be there.
        test_list: a further list, read where it is there.
        download: what to fetch and where to put it, for messages.
    """

    pixels: ClassVar[str]
    lists: ClassVar[tuple[str, ...]]
    test_list: ClassVar[str]
    download: ClassVar[str]

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that the lists are there."""
        self.require_files(self.lists, f"{self.download}, or name the folder with --data-root")

    def listing(self, *, needs_pixels: bool) -> Listing:
        """List the videos of all lists that are there, train first."""
        if not needs_pixels:
            raise InputError(f"{self.name} has no boxes, so that nothing is left without pixels; choose a backbone")
        folder = self.root / self.pixels
        places = [Place(folder=folder), Place(folder=folder, endings=VIDEO_ENDINGS)]
        sources, notes = find_sources(places, f"{folder}: no pixels; {self.download}")
        listed = self.listed()
        absent = [clip_id for clip_id in listed if clip_id not in sources]
        problems = []
        if absent:
            count = count_of(len(absent), "is", of=f"{len(listed):,} listed videos")
            problems.append(f"{count} not in {folder}, the first: {absent[0]}")
        clips = [
            Clip(clip_id=clip_id, source=sources[clip_id], frame_size=None) for clip_id in listed if clip_id in sources
        ]
        return Listing(clips=clips, notes=notes, problems=problems)

    @abstractmethod
    def listed(self) -> Sequence[str]:
        """Return the ids of the lists that are there, train first. Raises InputError when an id is listed twice."""

    def tracks(self, clip_id: str) -> Tracks:
        """Return no boxes: the data set has none."""
        return Tracks.none()
