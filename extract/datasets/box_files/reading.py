"""Files of boxes, whatever their forms, to the tracks of each video."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from ifcar.counts import count_of
from ifcar.data_files import absence, entries
from ifcar.errors import InputError, MissingDataError, nearest, one_of
from ifcar.extract.datasets.box_files.catalog import FORMS
from ifcar.extract.datasets.box_files.contract import Box, BoxFile, BoxForm, FileBoxes
from ifcar.extract.datasets.box_files.number_rows import CLASS_FILES
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.decode import frame_size, probe
from ifcar.extract.frame_clock import FrameClock
from ifcar.extract.subjects import SUBJECTS
from ifcar.extract.tracks import Detection, Tracks, link

_BESIDE = {*CLASS_FILES, "obj.data", "train.txt", "data.yaml", "seqinfo.ini", "readme.txt", "readme.md"}


@dataclass(kw_only=True, slots=True)
class VideoBoxes:
    """The boxes of a video.

    Args:
        path: the file, or the first of them.
        in_shares: whether corners are shares of the frame's sides and not pixels.
        in_ms: whether frame numbers are milliseconds of the video's clock.
        first: the number that the file gives the first frame.
        boxes: with frame numbers from 0.
        frames: numbers of the frames that the files list, from 0.
        sizes: every (width, height) that the files state of its pictures.
    """

    path: Path
    in_shares: bool
    in_ms: bool = False
    first: int = 0
    boxes: list[Box] = field(default_factory=list)
    frames: set[int] = field(default_factory=set)
    sizes: set[tuple[int, int]] = field(default_factory=set)

    @property
    def stated_in(self) -> str:
        """What corners and frames are stated in, in words."""
        return f"{'shares of the sides' if self.in_shares else 'pixels'} by {'seconds' if self.in_ms else 'frames'}"

    def place(self, box: Box) -> str:
        """Return where a box is, as the file states it."""
        return f"second {box.frame / 1000:g}" if self.in_ms else f"frame {box.frame + self.first} from {self.first}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenIn:
    """What a video's boxes and frames are seen in.

    Args:
        size: (width, height) of its frames in pixels; None where boxes are pixels of pictures of no stated size.
        clock: of it; None where frames are numbers.
    """

    size: tuple[int, int] | None = None
    clock: FrameClock | None = None

    @classmethod
    def of(cls, video: VideoBoxes, source: Path | None, size: tuple[int, int] | None = None) -> SeenIn:
        """Return what is needed for the boxes of a video; opens its source for that alone.

        Raises:
            DecodeError: the source cannot be read.
        """
        has_size = video.in_shares or bool(video.sizes)
        if has_size and size is None:
            assert source is not None or not video.in_shares
            size = None if source is None else frame_size(source)
        clock = None
        if video.in_ms:
            if source is None or source.is_dir():
                raise InputError(f"{video.path}: boxes at seconds of {source}, which is no video; expected one")
            clock = probe(source).clock
        return cls(size=size if has_size else None, clock=clock)


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxFiles:
    """All boxes that were found.

    Args:
        videos: by name.
        notes: what the files were taken for, a line each.
        digest: SHA-256 over their content.
    """

    videos: dict[str, VideoBoxes]
    notes: Sequence[str]
    digest: str

    def kinds(self) -> set[str]:
        """Return the names of all classes."""
        return {box.kind for video in self.videos.values() for box in video.boxes}


def box_paths(root: Path) -> list[tuple[Path, PurePosixPath]]:
    """Return the files of boxes of a folder of videos, boxes.* and all below boxes/, each with its path below these."""
    alone = [path for path in entries(root) if path.stem == "boxes" and path.is_file()]
    return [*((path, PurePosixPath(path.name)) for path in alone), *_below(root / "boxes", PurePosixPath())]


def given_paths(path: Path) -> list[tuple[Path, PurePosixPath]]:
    """Return the files of boxes that one path means, a file or a folder, each with its path from there on.

    Raises:
        MissingDataError: there is nothing.
    """
    if not path.exists():
        raise MissingDataError(f"{path}: {absence(path)}; expected a file of boxes, or a folder of them")
    inside = PurePosixPath(path.name)
    return list(_below(path, inside)) if path.is_dir() else [(path, inside)]


def _below(folder: Path, inside: PurePosixPath) -> Iterator[tuple[Path, PurePosixPath]]:
    for path in entries(folder):
        if path.is_dir():
            yield from _below(path, inside / path.name)
        elif path.name.lower() not in _BESIDE:
            yield path, inside / path.name


def read_box_files(paths: Sequence[tuple[Path, PurePosixPath]], videos: Collection[str]) -> BoxFiles:
    """Read files of boxes, each in the form that its content is of.

    Args:
        paths: the files, each with its path below the folder of box files.
        videos: names of the videos that there are.

    Raises:
        InputError: a file is of no known form, or not what its form asks for, or two files list the same frame.
    """
    digest, found = hashlib.sha256(), list[tuple[Path, BoxForm, FileBoxes]]()
    for path, inside in paths:
        file = BoxFile(path, inside, videos)
        form = form_of(file)
        found.append((path, form, form.read(file)))
        digest.update(hashlib.sha256(path.read_bytes()).digest() + str(inside).encode())
    from_zero = {  # of the forms whose frame numbers stand in names
        form.name for _, form, own in found if own.numbered == "as named" and any(0 in f for f in own.frames.values())
    }
    collected: dict[str, VideoBoxes] = {}
    starts: dict[str, set[str]] = {}
    for path, form, own in found:
        first = int(own.numbered == "from 1" or (own.numbered == "as named" and form.name not in from_zero))
        starts.setdefault(form.name, set()).add(
            "seconds" if own.numbered == "in ms" else f"frame numbers counted from {first}"
        )
        for video, frames in own.frames.items():
            _add(collected, video, path, own, {frame - first for frame in frames}, first)
    counts = Counter(form.name for _, form, _ in found)
    notes = [
        f"boxes: {count_of(count, 'file')} read as {name}, "
        f"{' or '.join(sorted(starts[name]))}{', pixels from 1' * FORMS.get(name).first_pixel}"
        for name, count in counts.items()
    ]
    unread = sorted({column for _, _, own in found for column in own.unread})
    if unread:
        notes.append(f"boxes: columns that are not read: {', '.join(map(repr, unread))}")
    return BoxFiles(videos=collected, notes=notes, digest=digest.hexdigest())


def _add(
    collected: dict[str, VideoBoxes], video: str, path: Path, own: FileBoxes, frames: set[int], first: int
) -> None:
    here = VideoBoxes(path=path, in_shares=own.in_shares, in_ms=own.numbered == "in ms", first=first)
    into = collected.setdefault(video, here)
    twice = frames & into.frames
    if twice:
        raise InputError(
            f"{path}: frame {min(twice) + first} of video {video!r:.80} is in {into.path} too; expected each frame "
            "of a video in one file"
        )
    if into.stated_in != here.stated_in and into.boxes and own.boxes[video]:
        raise InputError(
            f"{path}: boxes of video {video!r:.80} are in {here.stated_in} here, and in {into.path} in "
            f"{into.stated_in}; expected one form for a video"
        )
    into.frames |= frames
    into.sizes |= own.sizes.get(video, set())
    into.boxes += [Box(box.frame - first, box.kind, box.corners, box.track) for box in own.boxes[video]]


def is_of_form(file: BoxFile) -> bool:
    """Return whether a file's content is of some form."""
    return any(FORMS.get(name).owns(file) for name in FORMS.names())


def form_of(file: BoxFile) -> BoxForm:
    """Return the form of a file's content. Raises InputError when it is none that is known."""
    if file.path.name.endswith(".meta.json"):
        raise InputError(f"{file.path}: written by `ifcar detect`; expected its boxes in `ifcar extract --boxes`")
    own = [form for name in FORMS.names() if (form := FORMS.get(name)).owns(file)]
    if not own:
        what = "boxes in no known form" if file.begin.strip() else "is empty"
        raise InputError(f"{file.path}: {what}; expected {one_of(FORMS.names())}")
    if len(own) > 1:
        names = " and ".join(form.name for form in own)
        raise InputError(f"{file.path}: has what marks {names}; expected boxes in one form, export them again")
    return own[0]


def subject_kinds(subjects: str | None, kinds: Collection[str]) -> set[str]:
    """Return which of these classes are subjects: those of a text with commas between, or hands and persons.

    Capital and small letters count as the same.
    """
    wanted = SUBJECTS if subjects is None else [name.strip().casefold() for name in subjects.split(",")]
    return {kind for kind in kinds if kind.casefold() in wanted}


def check_subjects(subjects: str, kinds: Collection[str], where: object) -> None:
    """Raise InputError when no box, of all that `where` holds, is of a class that the text names."""
    folded = {kind.casefold() for kind in kinds}
    unknown = next((name.strip() for name in subjects.split(",") if name.strip().casefold() not in folded), None)
    if unknown is not None:
        known = ", ".join(sorted(kinds)[:10]) or "none"
        raise InputError(
            f"--subjects {subjects}: no box of {where} is of class {unknown!r}{nearest(unknown, kinds, '.')} Its "
            f"classes: {known}"
        )


def tracks_of(name: str, video: VideoBoxes, subjects: Collection[str], seen_in: SeenIn, box_notes: BoxNotes) -> Tracks:
    """Return the tracks of a video, with frame numbers from 0.

    Args:
        name: the video.
        video: its boxes.
        subjects: names of the classes that are subjects.
        seen_in: see there.
        box_notes: looks at the boxes, and counts those without area.

    Raises:
        InputError: two boxes in a frame are of one track, or they are of pictures of another shape than the frames.
    """
    scale = _scale(name, video, seen_in.size, box_notes)
    shown = {frame: _frame(frame, seen_in.clock) for frame in video.frames}
    by_frame: dict[int, list[Detection]] = {frame: [] for frame in shown.values()}
    seen: set[tuple[int, str]] = set()
    listed: set[Box] = set()
    for stated in video.boxes:
        if stated in listed and stated.track is None:
            box_notes.add_twice(f"{stated.kind!r} of video {name!r}, {video.place(stated)}")
            continue
        listed.add(stated)
        box = replace(stated, frame=shown[stated.frame])
        x1, y1, x2, y2 = (value * side for value, side in zip(box.corners, (*scale, *scale), strict=True))
        key = box.kind if box.track is None else f"{box.kind} {box.track}"
        if box.track is not None and (box.frame, key) in seen:
            raise InputError(
                f"{video.path}: video {name!r:.80}, {video.place(stated)}: two boxes of {box.kind!r:.40} are of "
                f"track {box.track!r:.40}; expected each track once in a frame"
            )
        seen.add((box.frame, key))
        if x2 > x1 and y2 > y1:
            by_frame[box.frame].append(Detection(key=key, is_subject=box.kind in subjects, box=(x1, y1, x2, y2)))
        else:
            box_notes.add_flat(f"{box.kind!r} of video {name!r}, {video.place(stated)}: {(x1, y1, x2, y2)}")
    frames = np.array(sorted(by_frame), np.int64)
    tracks = link(frames, [by_frame[int(frame)] for frame in frames])
    box_notes.add_clip(f"{name!r} of {video.path}", tracks.boxes, tracks.categories, (box.kind for box in video.boxes))
    return tracks


def _scale(name: str, video: VideoBoxes, size: tuple[int, int] | None, box_notes: BoxNotes) -> tuple[float, float]:
    """Return by what x and y are multiplied, so that they are pixels of the video's frames."""
    if video.in_shares or size is None:
        return size or (1, 1)
    others = sorted(video.sizes - {size})
    if not others:
        return 1, 1
    (width, height), what = others[0], f"{others[0][0]} × {others[0][1]} beside {size[0]} × {size[1]}"
    if len(video.sizes) > 1 or abs(width * size[1] - height * size[0]) > max(*size, width, height):
        raise InputError(
            f"{video.path}: video {name!r:.80}: boxes of pictures of another shape than its frames, {what} pixels; "
            "expected the size of the frames, or all in one size of their shape"
        )
    box_notes.add_scaled(f"{name!r}, {what}")
    return size[0] / width, size[1] / height


def _frame(number: int, clock: FrameClock | None) -> int:
    """Return the frame from 0 that a frame number means, or the one that is shown at so many milliseconds.

    These are rounded: a frame that begins within half a millisecond counts as shown.
    """
    return number if clock is None else max(0, clock.frame_at((number + 0.5) / 1000))


def read_video_boxes(path: Path, video: str | None, likely: str) -> tuple[str, BoxFiles]:
    """Return the name of one video of a file, and all boxes of the file, of which it has some.

    Args:
        path: the file, or a folder with one file a picture.
        video: its name in the file; None takes `likely` where the file has it, else the only one.
        likely: the name that it probably has.

    Raises:
        MissingDataError: there is no such file.
        InputError: it is of no known form, or has no such video, or no box of it.
    """
    wanted = likely if video is None else video
    found = read_box_files(given_paths(path), [wanted])
    known = sorted(found.videos)
    if wanted not in found.videos and (video is not None or len(known) != 1):
        if not known:
            raise InputError(f"{path}: no file in it holds a box; expected boxes of {wanted!r:.80}")
        hint = nearest(wanted, known) or f"; it holds {len(known)}, the first is {known[0]!r:.80}"
        raise InputError(f"{path}: choose a video with --clip, as it has no boxes of {wanted!r:.80}{hint}")
    chosen = wanted if wanted in found.videos else known[0]
    if not found.videos[chosen].boxes:
        raise InputError(f"{path}: video {chosen!r:.80} has no box")
    return chosen, found
