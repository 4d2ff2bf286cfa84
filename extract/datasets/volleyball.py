"""Volleyball (Ibrahim et al. 2016): group activities and personal actions of players at the key frames of 55 matches.

Facts of the files that the reader relies on: a line of annotations.txt is KEY.jpg, the group activity, and for each
player x, y, width, height in pixels and the action; a clip's folder holds the 20 frames before and after its key frame,
each under its own number. Boxes are annotated in the key frame only and are taken to hold over the clip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Category, Split
from ifcar.counts import count_of
from ifcar.data_files import subfolders
from ifcar.errors import InputError, MissingDataError, nearest_of
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.contract import Clip, Dataset, Erratum, Listing, Progress, register_dataset
from ifcar.extract.datasets.instance_labels import LabelledInstance, instance_space
from ifcar.extract.datasets.label_tables import multi_labels, protocol_table
from ifcar.extract.datasets.text_rows import finite_number, whole_number, word_rows
from ifcar.extract.frame_folder import shown_size
from ifcar.extract.limits import MAX_COORDINATE, MAX_FRAME_NUMBER, DecodeError
from ifcar.extract.tracks import Tracks

GROUP_ACTIVITIES = ("r_set", "r_spike", "r-pass", "r_winpoint", "l_winpoint", "l-pass", "l-spike", "l_set")
PERSONAL_ACTIONS = ("waiting", "setting", "digging", "falling", "spiking", "blocking", "jumping", "moving", "standing")
REACH_FRAMES = 20
"""Frames of a clip on each side of its key frame."""
TRAIN_VIDEOS = (1, 3, 6, 7, 10, 13, 15, 16, 18, 22, 23, 31, 32, 36, 38, 39, 40, 41, 42, 48, 50, 52, 53, 54)
VALIDATION_VIDEOS = (0, 2, 8, 12, 17, 19, 24, 26, 27, 28, 30, 33, 46, 49, 51)
TEST_VIDEOS = (4, 5, 9, 11, 14, 20, 21, 25, 29, 34, 35, 37, 43, 44, 45, 47)
_SPLIT = dict.fromkeys(map(str, TRAIN_VIDEOS + VALIDATION_VIDEOS), Split.TRAIN) | dict.fromkeys(
    map(str, TEST_VIDEOS), Split.TEST
)
_PLAYER_WORDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFrame:
    """What a line of annotations.txt says.

    Args:
        video: the video's folder name.
        number: of the key frame.
        activity: the group's, one of `GROUP_ACTIVITIES`.
        actions: of all players, each one of `PERSONAL_ACTIONS`.
        boxed: (M,) which players have a box, by their places in the line.
        boxes: (M, 4) float32 pixels (x1, y1, x2, y2).
    """

    video: str
    number: int
    activity: str
    actions: tuple[str, ...]
    boxed: tuple[int, ...]
    boxes: NDArray[np.float32]

    @property
    def clip_id(self) -> str:
        """VIDEO/KEY."""
        return f"{self.video}/{self.number}"

    def players(self) -> list[LabelledInstance]:
        """Return the players with a box; each one's id is VIDEO/KEY/PLACE, the place in the line from 1."""
        return [
            LabelledInstance(name=f"{self.clip_id}/{place + 1}", classes=(PERSONAL_ACTIONS.index(self.actions[place]),))
            for place in self.boxed
        ]

    def categories(self) -> NDArray[np.uint8]:
        """Return the (M,) categories of the boxes: every player is a subject."""
        return np.full(len(self.boxes), Category.SUBJECT, np.uint8)


@register_dataset
class Volleyball(Dataset):
    """Folders of frames, and one annotations.txt a video."""

    name = "volleyball"
    summary = "Volleyball: 8 activities of the group, 9 actions of each player, and which of these a clip shows"
    default_root = "volleyball"
    annotation_fps = None  # frames go by their own numbers, at no stated rate
    errata = (
        Erratum(
            "Players are boxed in the key frame alone. Their boxes are held over the 41 frames around it.",
            source="videos/V/annotations.txt",
        ),
        Erratum(
            "Names of group activities mix _ and -: r_set beside r-pass. They are read as they are written.",
            source="videos/V/annotations.txt",
        ),
    )

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._frames: dict[str, KeyFrame] = {}

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that some video is there."""
        if not self._annotation_files():
            raise MissingDataError(
                f"{self.root}: no videos/V/annotations.txt; unpack the Volleyball data set's folders 0 … 54 into "
                f"{self.root / 'videos'}, or name the folder that holds videos/ with --data-root"
            )

    def listing(self, *, needs_pixels: bool) -> Listing:
        """Read every video's annotations; clips whose key frame has no picture are listed and left out."""
        digest = hashlib.sha256()
        box_notes = BoxNotes()
        self._frames = {}
        for path in self._annotation_files():
            digest.update(f"{path.parent.name}\n".encode())
            for frame in read_annotations(path, digest, box_notes):
                if frame.clip_id in self._frames:
                    raise InputError(f"{path}: key frame {frame.number} is annotated twice; expected each once")
                self._frames[frame.clip_id] = frame
        problems: list[str] = []
        clips: list[Clip] = []
        for clip_id, frame in self._frames.items():
            folder = self.root / "videos" / frame.video / str(frame.number)
            try:
                size = shown_size(folder / f"{frame.number}.jpg")
            except DecodeError as error:
                problems.append(f"{clip_id}: left out, {error}")
            else:
                clips.append(Clip(clip_id=clip_id, source=folder, frame_size=size))
        return Listing(clips=clips, notes=box_notes.lines(), problems=problems, digest=digest.hexdigest())

    def tracks(self, clip_id: str) -> Tracks:
        """Return the key frame's boxes, held over the clip's 41 frames; every player is a subject."""
        frame = self._frames[clip_id]
        first = max(0, frame.number - 1 - REACH_FRAMES)  # picture K.jpg is frame K − 1
        frames = np.arange(first, frame.number + REACH_FRAMES)
        return Tracks.held(frames, frame.boxes)

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `official` over the official videos; its validation videos count as training.

        Label spaces: `group`, one activity a clip; `personal`, one action a player; `actions`, those that some player
        of a clip does.
        """
        frames = {clip_id: self._frames[clip_id] for clip_id in clip_ids}
        split = {clip_id: _SPLIT.get(frame.video, Split.NONE) for clip_id, frame in frames.items()}
        activities = np.array([GROUP_ACTIVITIES.index(frame.activity) for frame in frames.values()], np.int16)
        shown = {clip_id: {PERSONAL_ACTIONS.index(a) for a in frame.actions} for clip_id, frame in frames.items()}
        players = {clip_id: frame.players()[: self.num_instances] for clip_id, frame in frames.items()}
        spaces = (
            LabelSpace(name="group", kind="single", classes=GROUP_ACTIVITIES, targets=activities),
            instance_space("personal", "single", PERSONAL_ACTIONS, clip_ids, players),
            replace(multi_labels(PERSONAL_ACTIONS, clip_ids, shown), name="actions"),
        )
        others = sum(part == Split.NONE for part in split.values())
        lost = [len(frame.boxed) - len(players[clip_id]) for clip_id, frame in frames.items()]
        strays = f"{count_of(others, 'clip is')} of videos other than 0 … 54, which no part of the split lists"
        notes = [strays] if others else []
        if any(lost):
            players_in_all = f"{sum(len(frame.boxed) for frame in frames.values()):,} players"
            notes.append(
                f"protocol official: {count_of(sum(lost), 'has', of=players_in_all)} no slot, so that their "
                f"actions are not among the labels of {spaces[1].name!r}"
            )
        videos = {clip_id: f"video {frame.video}" for clip_id, frame in frames.items()}
        return [protocol_table("official", spaces, clip_ids, split, videos, "video")], notes

    def _annotation_files(self) -> list[Path]:
        paths = [folder / "annotations.txt" for folder in subfolders(self.root / "videos")]
        return sorted((path for path in paths if path.is_file()), key=lambda path: path.parent.name.zfill(2))


def read_annotations(path: Path, digest: hashlib._Hash, box_notes: BoxNotes) -> list[KeyFrame]:
    """Read one video's annotations.txt.

    Args:
        path: VIDEO/annotations.txt.
        digest: takes the file's bytes.
        box_notes: counts the boxes without area, which are left out; their players' actions stay labels of the clip.

    Raises:
        InputError: a line is not of that form, or names an unknown activity or action.
    """
    frames = []
    for where, words in word_rows(path, digest, "the annotations of a Volleyball video"):
        number, ending = words[0].split(".")[0], words[0].partition(".")[2]
        if ending != "jpg" or len(words) < 2 or (len(words) - 2) % _PLAYER_WORDS:
            raise InputError(
                f"{where}: {len(words)} words, the first {words[0]!r:.40}; expected KEY.jpg, the group activity and "
                "x, y, width, height, action of each player"
            )
        key = whole_number(where, "the key frame's number", number)
        if not 1 <= key <= MAX_FRAME_NUMBER - REACH_FRAMES:
            raise InputError(f"{where}: the key frame's number is {key}; expected 1 to {MAX_FRAME_NUMBER}")
        players = [words[place : place + _PLAYER_WORDS] for place in range(2, len(words), _PLAYER_WORDS)]
        boxes = [_box(where, player[:-1]) for player in players]
        for player, box in zip(players, boxes, strict=True):
            if not _has_area(box):
                box_notes.add_flat(f"{where}: {' '.join(player)}")
        frame = KeyFrame(
            video=path.parent.name,
            number=key,
            activity=_known(where, "group activity", words[1], GROUP_ACTIVITIES),
            actions=tuple(_known(where, "action", player[-1], PERSONAL_ACTIONS) for player in players),
            boxed=tuple(place for place, box in enumerate(boxes) if _has_area(box)),
            boxes=np.array([box for box in boxes if _has_area(box)], np.float32).reshape(-1, 4),
        )
        box_notes.add_clip(where, frame.boxes, frame.categories())
        frames.append(frame)
    return frames


def _box(where: str, corners: Sequence[str]) -> NDArray[np.float32]:
    """Return (x1, y1, x2, y2) of x, y, width and height in pixels."""
    values = [finite_number(where, f"{name} of a box", text) for name, text in zip("xywh", corners, strict=True)]
    if not all(abs(value) <= MAX_COORDINATE for value in values):
        raise InputError(f"{where}: a box of {' '.join(corners):.80}; expected pixels")
    x, y, width, height = values
    return np.array([x, y, x + width, y + height], np.float32)


def _has_area(box: NDArray[np.float32]) -> bool:
    return bool(box[2] > box[0] and box[3] > box[1])


def _known(where: str, kind: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise InputError(f"{where}: unknown {kind} {name!r:.40}{nearest_of(name, known)}")
    return name
