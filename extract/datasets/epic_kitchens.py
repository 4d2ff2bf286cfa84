"""EPIC-KITCHENS (Damen et al. 2018, the first release of 55 hours): the verb of each annotated action.

EPIC_train_action_labels.csv      uid, participant_id, video_id, start_timestamp, stop_timestamp, verb_class, …
EPIC_verb_classes.csv             verb_id, class_key, …
videos/**/PNN_MM.MP4              or frames at 60 a second, frames/**/PNN_MM/frame_0000000001.jpg; two levels of folders
                                  above a video are looked through, as train/P01/

A clip is an action, its id the uid, its span what the timestamps say: frame numbers of the lists count at 60 a second,
which no video has. There are no boxes that heads could use: the object labels are sparse. They and
EPIC_train_invalid_labels.csv are not read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split
from ifcar.counts import count_of
from ifcar.data_files import subfolders
from ifcar.errors import InputError, MissingDataError
from ifcar.extract.datasets.contract import Clip, Dataset, Erratum, Listing, Progress, register_dataset
from ifcar.extract.datasets.label_tables import incomplete, protocol_table, single_labels
from ifcar.extract.datasets.pixel_sources import Place, find_sources
from ifcar.extract.datasets.text_rows import column_rows, whole_number
from ifcar.extract.tracks import Tracks

ACTIONS, VERBS = "EPIC_train_action_labels.csv", "EPIC_verb_classes.csv"
ACTION_COLUMNS = ("uid", "participant_id", "video_id", "start_timestamp", "stop_timestamp", "verb_class")
VERB_COLUMNS = ("verb_id", "class_key")
VIDEO_ENDINGS = (".mp4",)
FRAMES_PER_SECOND = 60.0
LAST_TRAINING_PERSON = {"orn": 25, "orn-24": 24}
"""Of each protocol: Baradel et al. 2018 name persons 1 to 25; the counts that they print fit 1 to 24 better."""
_PERSON = re.compile(r"P([0-9]{2,3})")
_TIME = re.compile(r"([0-9]{1,3}):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,6})?)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """A row of the list.

    Args:
        video: its video's name.
        person: who acts, from 1.
        verb: number of its class.
        span_sec: seconds of the video.
    """

    video: str
    person: int
    verb: int
    span_sec: tuple[float, float]


@register_dataset
class EpicKitchens(Dataset):
    """Videos or frames, and the published lists of the training part."""

    name = "epic-kitchens"
    summary = "EPIC-KITCHENS-55: the verb of each action, split by persons (125 verbs, no boxes)"
    default_root = "epic-kitchens"
    errata = (
        Erratum(
            "start_frame and stop_frame count at 60 a second, which no video has: they have 59.94, 29.97, "
            "48, 90 or varying rates. The timestamps count.",
            source="EPIC_train_action_labels.csv",
        ),
        Erratum(
            "Frame files count from 1, frame_0000000001.jpg, at 60 a second. They are read so.",
            source="the published frames of EPIC-KITCHENS-55",
        ),
        Erratum(
            "Object boxes are top, left, height, width, of few frames and without masks. They are not read.",
            source="EPIC_train_object_labels.csv",
        ),
        Erratum(
            "Persons 1 to 25 have 23,191 actions and the others 5,281, where Baradel et al. print 22,675 and "
            "5,886. Protocol orn-24 leaves person 25 to the test part and has 22,679 and 5,793.",
            source="Baradel et al. 2018, and EPIC_train_action_labels.csv, counted",
        ),
    )

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._verbs: list[str] = []
        self._actions: dict[str, Action] = {}

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that the lists are there."""
        self.require_files(
            (ACTIONS, VERBS),
            f"download the annotations of EPIC-KITCHENS-55 and put {ACTIONS} and {VERBS} there, and the training "
            "videos as videos/PNN_MM.MP4, or name the folder with --data-root",
        )

    def listing(self, *, needs_pixels: bool) -> Listing:
        """List the actions whose video is there."""
        if not needs_pixels:
            raise InputError(f"{self.name} has no boxes, so that nothing is left without pixels; choose a backbone")
        self._verbs = read_verbs(self.root / VERBS)
        self._actions = read_actions(self.root / ACTIONS, len(self._verbs))
        sources, notes = self._find_sources()
        absent = [uid for uid, action in self._actions.items() if action.video not in sources]
        problems = []
        if absent:
            videos = list(dict.fromkeys(self._actions[uid].video for uid in absent))
            problems.append(
                f"{count_of(len(absent), 'is', of=f'{len(self._actions):,} actions')} left out, as "
                f"{count_of(len(videos), 'video is')} not there, the first: videos/{videos[0]}.MP4"
            )
        clips = [
            Clip(
                clip_id=uid,
                source=sources[action.video],
                frame_size=None,
                span_sec=action.span_sec,
                source_fps=FRAMES_PER_SECOND if sources[action.video].is_dir() else None,
            )
            for uid, action in self._actions.items()
            if action.video in sources
        ]
        return Listing(clips=clips, notes=notes, problems=problems)

    def tracks(self, clip_id: str) -> Tracks:
        """Return no boxes: the data set has none."""
        return Tracks.none()

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `orn` and `orn-24`; groups are persons."""
        space = single_labels(self._verbs, clip_ids, {uid: action.verb for uid, action in self._actions.items()})
        persons = {uid: f"P{action.person:02d}" for uid, action in self._actions.items()}
        tables, notes = [], []
        for name, last in LAST_TRAINING_PERSON.items():
            split = {uid: Split.TRAIN if action.person <= last else Split.TEST for uid, action in self._actions.items()}
            table = protocol_table(name, [space], clip_ids, split, persons, "person")
            tables.append(table)
            notes += incomplete(table, split, clip_ids)
        return tables, notes

    def _find_sources(self) -> tuple[dict[str, Path], list[str]]:
        places = [Place(folder=folder) for folder in _two_levels(self.root / "frames")]
        places += [Place(folder=folder, endings=VIDEO_ENDINGS) for folder in _two_levels(self.root / "videos")]
        videos = {action.video for action in self._actions.values()}
        found, notes = find_sources(places)
        sources = {name: source for name, source in found.items() if name in videos}
        if not sources:
            raise MissingDataError(
                f"{self.root}: no pixels; download the training videos of EPIC-KITCHENS-55 and put them there as "
                "videos/PNN_MM.MP4, or their frames at 60 a second as frames/PNN_MM/frame_0000000001.jpg"
            )
        return sources, notes


def _two_levels(folder: Path) -> list[Path]:
    """Return a folder, the folders in it and those in them, as videos lie in train/P01/."""
    first = subfolders(folder)
    return [folder, *first, *(path for parent in first for path in subfolders(parent))]


def read_verbs(path: Path) -> list[str]:
    """Return the names of the verb classes in the order of their numbers.

    Raises:
        MissingDataError: no such file.
        InputError: a column is missing, or the numbers are not 0, 1, … each once.
    """
    names: dict[int, str] = {}
    for where, row in column_rows(path, hashlib.sha256(), VERB_COLUMNS, "EPIC-KITCHENS' verb classes"):
        number = whole_number(where, "verb_id", row["verb_id"])
        if number in names:
            raise InputError(f"{where}: verb_id {number} is listed twice; expected each once")
        names[number] = row["class_key"]
    if sorted(names) != list(range(len(names))):
        raise InputError(f"{path}: {len(names)} verbs whose numbers are not 0 … {len(names) - 1}, each once")
    return [names[number] for number in range(len(names))]


def read_actions(path: Path, num_verbs: int) -> dict[str, Action]:
    """Return the actions by their uid, in the file's order.

    Raises:
        MissingDataError: no such file.
        InputError: a column is missing, a row is not of that form, or an action ends before it begins.
    """
    actions: dict[str, Action] = {}
    for where, row in column_rows(path, hashlib.sha256(), ACTION_COLUMNS, "EPIC-KITCHENS' action labels"):
        uid, person = row["uid"], _PERSON.fullmatch(row["participant_id"])
        if not uid or uid in actions:
            raise InputError(f"{where}: uid is {uid!r:.40}; expected each action once, and none empty")
        if person is None or not row["video_id"].startswith(row["participant_id"] + "_"):
            raise InputError(
                f"{where}: participant {row['participant_id']!r:.40} of video {row['video_id']!r:.40}; expected P01 "
                "and P01_01 or the like"
            )
        verb = whole_number(where, "verb_class", row["verb_class"])
        if verb >= num_verbs:
            raise InputError(f"{where}: verb_class is {verb}; {VERBS} has 0 to {num_verbs - 1}")
        start, stop = (_seconds(where, name, row[name]) for name in ("start_timestamp", "stop_timestamp"))
        if not start < stop:
            raise InputError(
                f"{where}: the action runs from {row['start_timestamp']} to {row['stop_timestamp']}; expected a start "
                "before the stop"
            )
        actions[uid] = Action(video=row["video_id"], person=int(person[1]), verb=verb, span_sec=(start, stop))
    if not actions:
        raise InputError(f"{path}: holds no action; expected a header and rows of {', '.join(ACTION_COLUMNS)}")
    return actions


def _seconds(where: str, name: str, text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise InputError(f"{where}: {name} is {text!r:.40}; expected a time as 00:01:02.34")
    return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
