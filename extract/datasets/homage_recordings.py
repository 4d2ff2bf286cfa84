"""What the files of Home Action Genome, in either layout, say of each recording: lists, atomic actions and films."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ifcar.counts import count_of
from ifcar.data_files import entries, subfolders
from ifcar.errors import InputError, MissingDataError
from ifcar.extract.datasets.homage_files import Action, Listed, parse_name, read_actions, read_classes, read_list
from ifcar.extract.datasets.pixel_sources import Place, find_sources

FILMS = ("action_split_data/V1.0", "ego-and-3rd-person-view")
LISTS = ("list_with_activity_labels", "activity_lists")
ACTIONS = ("annotation_files/atomic_actions", "annotations/atomic_actions")
SCENE_GRAPHS = ("annotation_files/scene_graph_annotations", "annotations/scene_graph_annotations")
ACTIVITY_CLASSES, ATOMIC_CLASSES = "classInd.txt", "classInd_atomic.txt"
TRAIN, HELD_OUT = "train", {"split-1": "val", "split-2": "test"}
_ENDINGS = (".mkv", ".mp4", ".webm", ".avi")


@dataclass(kw_only=True, slots=True)
class Recording:
    """What is known of a recording.

    Args:
        activity: its class.
        parts: the lists that have it.
        films: view → file.
        actions: its atomic actions; None where they are not annotated.
    """

    activity: str
    parts: set[str]
    films: dict[int, Path] = field(default_factory=dict)
    actions: list[Action] | None = None


class HomageFolder:
    """A root of either layout.

    Attributes:
        base: the folder that holds the layout's folders.
        recordings: by name, as the lists have them.
        activities: names of the classes.
        atomic: names of the classes of atomic actions; none where there are none.
        parts: those whose lists are there.
    """

    def __init__(self, root: Path) -> None:
        inner = root / "hacgen"
        self.base = inner if inner.is_dir() else root
        self.recordings: dict[str, Recording] = {}
        self.activities: Sequence[str] = ()
        self.atomic: Sequence[str] = ()
        self.parts: set[str] = set()

    def read(self, digest: hashlib._Hash, problems: list[str]) -> list[str]:
        """Read everything; return what is not read or is incomplete, and add what is left out to `problems`."""
        self.activities = self._classes(ACTIVITY_CLASSES, digest)
        self.atomic = self._classes(ATOMIC_CLASSES, digest)
        self._read_lists(digest, problems)
        return self._read_actions(digest) + self._find_films()

    def list_of(self, part: str) -> Path | None:
        """Return the list of a part, None where it is not there."""
        places = (self.base / folder / f"{part}_list.csv" for folder in LISTS)
        return next((path for path in places if path.is_file()), None)

    def _classes(self, name: str, digest: hashlib._Hash) -> Sequence[str]:
        folders = (self.base, *(self.base / own for own in (*LISTS, *ACTIONS, "annotation_files", "annotations")))
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        return () if path is None else read_classes(path, digest)

    def _read_lists(self, digest: hashlib._Hash, problems: list[str]) -> None:
        """Gather the lists' rows by recording; one with several activities is left out."""
        rows: dict[str, list[tuple[str, Listed]]] = {}
        self.parts, self.recordings = set(), {}
        for part in (TRAIN, *HELD_OUT.values()):
            path = self.list_of(part)
            if path is not None:
                self.parts.add(part)
                for row in read_list(path, self.activities, digest):
                    rows.setdefault(row.recording, []).append((part, row))
        doubled: list[str] = []
        for name, found in rows.items():
            parts = {part for part, _ in found}
            activities = list(dict.fromkeys(row.activity for _, row in found))
            if len(activities) > 1:
                places = (next(row.where for _, row in found if row.activity == own) for own in activities[:2])
                stated = " and ".join(f"{own} ({where})" for own, where in zip(activities, places, strict=False))
                problems.append(f"{name}: left out, listed with two activities, {stated}")
                continue
            if TRAIN in parts and len(parts) > 1:
                raise InputError(
                    f"{found[-1][1].where}: {name} is in the train list too ({found[0][1].where}); expected each "
                    "recording trained on or tested on"
                )
            doubled += [f"{name} ({found[-1][1].where})"] if len(found) > len(parts) else []
            self.recordings[name] = Recording(activity=activities[0], parts=parts)
        problems += counted(doubled, "recording is listed twice in a list, and counts", "once")
        if not self.activities:
            self.activities = sorted({own.activity for own in self.recordings.values()})
            problems.append(
                f"no {ACTIVITY_CLASSES}: the {len(self.activities)} activities of the lists are the classes"
            )

    def _read_actions(self, digest: hashlib._Hash) -> list[str]:
        """Read the atomic actions of listed recordings; return what is incomplete."""
        empty, strange = list[Path](), list[Path]()
        for path in _below(self.base, ACTIONS, (".json",)):
            named = parse_name(path.stem.removesuffix("aa").rstrip("_"))
            recording = None if named is None else self.recordings.get(named[0])
            if recording is None:
                strange.append(path)
                continue
            actions = read_actions(path, self.atomic, digest)
            empty += [] if actions else [path]
            recording.actions = actions or recording.actions
        annotated = [own.actions for own in self.recordings.values() if own.actions is not None]
        notes = counted(empty, "file of atomic actions is", "empty: an activity alone")
        notes += counted(strange, "file of atomic actions is", "of no listed recording, not read")
        absent = len(self.recordings) - len(annotated) - len(empty)
        notes += [f"{count_of(absent, 'recording has')} no file of atomic actions: an activity alone"] if absent else []
        if not self.atomic and annotated:
            self.atomic = sorted({action.name for actions in annotated for action in actions})
            notes.append(f"no {ATOMIC_CLASSES}: the {len(self.atomic)} atomic actions of the files are the classes")
        return notes

    def _find_films(self) -> list[str]:
        """Give recordings their films; return what is not read."""
        folders = [self.base / own for own in FILMS]
        places = [Place(folder=place, endings=_ENDINGS) for own in folders for place in (own, *subfolders(own))]
        sources, notes = find_sources(places)
        strange, other = list[Path](), list[Path]()
        for stem, path in sorted(sources.items()):
            named = parse_name(stem)
            if named is None or named[1] is None:
                strange.append(path)
            elif named[0] in self.recordings:
                self.recordings[named[0]].films[named[1]] = path
            else:
                other.append(path)
        if not any(recording.films for recording in self.recordings.values()):
            raise MissingDataError(
                f"{self.base}: no film of a listed recording; put the films there as "
                f"{FILMS[0]}/p0003/p0003_r001_v000_a011.mkv or in {FILMS[1]}/; their lengths are needed with "
                "--backbone none too"
            )
        notes += counted(other, "film is", "of recordings that no list names, not read")
        notes += counted(strange, "film is", "not named as p0003_r001_v000_a011, not read")
        return notes

    def scene_graphs(self) -> list[str]:
        """Return a line on the files of scene graphs, which are not read, where there are some."""
        found = sum(1 for _ in _below(self.base, SCENE_GRAPHS, (".json",)))
        return [f"{count_of(found, 'file of scene graphs is')} found, not read"] if found else []


def counted(found: Sequence[object], one: str, what: str) -> list[str]:
    """Return a line on how many there are of something, see `count_of`, with the first; none where there are none."""
    return [f"{count_of(len(found), one)} {what}; the first: {found[0]}"] if found else []


def _below(base: Path, places: Sequence[str], endings: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files in these folders and in the folders in them, by name."""
    for place in places:
        for folder in (base / place, *subfolders(base / place)):
            yield from entries(folder, *endings)
