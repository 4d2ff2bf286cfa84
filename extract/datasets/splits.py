"""Split and label files in Something-Else's format, read as protocol tables.

splits/PROTOCOL/labels.json      {"Moving something up": 76, …}
splits/PROTOCOL/train.json       [{"id", "template": "Moving [something] up", "placeholders": […]}, …]
splits/PROTOCOL/validation.json  the same; these are the test clips
splits/fewshot/…                 base and novel classes, under the names in which they were published; further draws of
                                 the shots, where there are any, end in _draw2.json, _draw3.json, …
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Split
from ifcar.counts import count_of
from ifcar.data_files import subfolders
from ifcar.errors import InputError
from ifcar.extract.datasets.label_tables import empty_class_notes
from ifcar.extract.datasets.strict_json import read_json

_MAX_CLASSES = 1 << 15  # class numbers are stored as int16


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolFiles:
    """Where one protocol's three files are; the first name that exists is taken.

    Args:
        name: the protocol's name.
        labels: names of the label file.
        train: names of the list of training clips.
        test: names of the list of test clips.
        optional: there is no such protocol when its training list is missing.
    """

    name: str
    labels: tuple[str, ...] = ("labels.json",)
    train: tuple[str, ...] = ("train.json",)
    test: tuple[str, ...] = ("validation.json",)
    optional: bool = False

    def read_classes(self, folder: Path, notes: list[str]) -> list[str] | None:
        """Return the class names, or None, and a note, where there is no such protocol."""
        if self.optional and _first(folder, self.train) is None:
            return None
        path = _first(folder, self.labels)
        if path is None:
            notes.append(f"protocol {self.name}: left out, {folder / self.labels[0]} is missing")
        return None if path is None else read_class_names(path)

    def lists(self, folder: Path, notes: list[str]) -> Iterator[tuple[Split, Path]]:
        """Yield the lists that are there, each with its part; a note says which is not."""
        for part, names in ((Split.TRAIN, self.train), (Split.TEST, self.test)):
            if (path := _first(folder, names)) is not None:
                yield part, path
            else:
                notes.append(f"protocol {self.name}: no {part.name.lower()} clips, {folder / names[0]} is missing")


NOVEL_TEST = ("finetune_validation.json", "finetune_validation_set.json")
MAX_DRAWS = 20
FEW_SHOT = (
    ProtocolFiles(
        name="fewshot-base",
        labels=("base_labels.json",),
        train=("base_training_set.json", "base_train_set.json", "base_training.json"),
        test=("base_validation_set.json",),
    ),
    *(
        ProtocolFiles(
            name=f"fewshot-{shots}" + (f"-draw{draw}" if draw > 1 else ""),
            labels=("finetune_labels.json",),
            train=tuple(
                f"finetune_{shots}shot_{word}" + (f"_draw{draw}" if draw > 1 else "") + ".json"
                for word in ("training", "train")
            ),
            test=(*NOVEL_TEST, f"finetune_{shots}shot_validation.json"),
            optional=draw > 1,
        )
        for shots in (5, 10)
        for draw in range(1, MAX_DRAWS + 1)
    ),
)


def read_protocols(splits: Path, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
    """Read every protocol folder below `splits`.

    Args:
        splits: folder that holds one folder a protocol.
        clip_ids: the cache's clips, in order.

    Returns:
        The tables, sorted by name, and one line for everything incomplete: a missing list, clips that are not there.

    Raises:
        InputError: a file is not what it should be.
    """
    tables: list[ProtocolTable] = []
    notes: list[str] = []
    for folder in subfolders(splits):
        few_shot = any((folder / name).is_file() for files in FEW_SHOT for name in files.labels)
        for files in FEW_SHOT if few_shot else (ProtocolFiles(name=folder.name),):
            table = read_protocol(folder, files, clip_ids, notes)
            if table is not None:
                tables.append(table)
    return sorted(_with_sibling_groups(tables), key=lambda t: t.name), notes


def template_class(template: str) -> str:
    """Return the class name of a template: "Moving [something] up" → "Moving something up"."""
    return template.replace("[", "").replace("]", "")


def read_protocol(
    folder: Path, files: ProtocolFiles, clip_ids: Sequence[str], notes: list[str]
) -> ProtocolTable | None:
    """Read one protocol's files.

    Args:
        folder: holds them.
        files: their names.
        clip_ids: the cache's clips, in order.
        notes: takes one line for everything incomplete.

    Returns:
        The table, or None where its label file is not there, or a list without which there is no such protocol.

    Raises:
        InputError: a file is not what it should be.
    """
    classes = files.read_classes(folder, notes)
    if classes is None:
        return None
    number = {clip_id: i for i, clip_id in enumerate(clip_ids)}
    target_of = {name: k for k, name in enumerate(classes)}
    split = np.zeros(len(clip_ids), np.uint8)
    targets = np.full(len(clip_ids), -1, np.int16)
    groups = np.full(len(clip_ids), -1, np.int32)
    group_of: dict[str, int] = {}
    part_of: dict[str, Split] = {}
    for part, path in files.lists(folder, notes):
        absent = twice = 0
        for entry in read_entries(path):
            clip_id = entry["id"]
            if part_of.get(clip_id, part) != part:
                raise InputError(f"{path}: clip {clip_id!r} is also in the train list; a clip must not be in both")
            i = number.get(clip_id)
            target = class_number(path, entry["id"], entry, target_of)
            if i is None:
                absent += 1
            elif clip_id in part_of and targets[i] != target:
                both = f"{classes[targets[i]]!r} and {classes[target]!r}"
                raise InputError(f"{path}: clip {clip_id!r} is listed twice, as {both}; expected each clip once")
            else:
                split[i], targets[i] = part, target
                groups[i] = group_of.setdefault(_group(path, entry), len(group_of))
            twice += clip_id in part_of
            part_of[clip_id] = part
        where = f"protocol {files.name}, {part.name.lower()}"
        if absent:
            notes.append(f"{where}: {count_of(absent, f'clip of {path.name} is')} not in the data")
        if twice:
            notes.append(f"{where}: {count_of(twice, f'clip of {path.name} is listed twice and counts')} once")
    notes += empty_class_notes(files.name, classes, targets[split == Split.TRAIN])
    return ProtocolTable(
        name=files.name,
        spaces=(LabelSpace(kind="single", classes=tuple(classes), targets=targets),),
        split=split,
        groups=groups,
        group_names=tuple(group_of),
        group_kind="object",
    )


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_class_names(path: Path) -> list[str]:
    """Return the class names of a label file in target order. Raises InputError when it is none, or too long."""
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: expected a JSON object {{class name: number}}, found {type(content).__name__}")
    if len(content) > _MAX_CLASSES:
        raise InputError(f"{path}: {len(content):,} classes; up to {_MAX_CLASSES:,} are read")
    numbers = {name: _whole_number(path, name, value) for name, value in content.items()}
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise InputError(f"{path}: the class numbers must be 0 … {len(numbers) - 1}, each once")
    return sorted(numbers, key=numbers.__getitem__)


def _whole_number(path: Path, name: str, value: Any) -> int:
    """Return a class number, which published files also write as text."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= len(str(_MAX_CLASSES)):
        return int(value)
    if type(value) is not int:
        raise InputError(f"{path}: class {name!r:.80} has the number {value!r:.80}; expected a whole number")
    return value


def _group(path: Path, entry: Mapping[str, Any]) -> str:
    """Return the clip's group: its first placeholder, or nothing."""
    placeholders = entry.get("placeholders") or [""]
    if not isinstance(placeholders, list) or not isinstance(placeholders[0], str):
        raise InputError(
            f"{path}: clip {entry['id']!r}: placeholders are {placeholders!r:.80}; expected a list of texts"
        )
    return placeholders[0].lower()


def read_entries(path: Path) -> list[Mapping[str, Any]]:
    """Return a split file's clips, each a mapping with a text id. Raises InputError when it is none."""
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a JSON list of clips, found {type(content).__name__}")
    for place, entry in enumerate(content):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise InputError(f"{path}: entry {place} has no text 'id'")
    return content


def class_number(path: Path, clip_id: str, labelled: Mapping[str, Any], target_of: Mapping[str, int]) -> int:
    """Return the number of the class that a template names. Raises InputError when it is no text or not listed."""
    template = labelled.get("template")
    if not isinstance(template, str):
        raise InputError(f"{path}: clip {clip_id!r:.80} has no text 'template'")
    name = template_class(template)
    if name not in target_of:
        raise InputError(f"{path}: clip {clip_id!r:.80} has class {name!r:.80}, which its labels.json does not list")
    return target_of[name]


def _with_sibling_groups(tables: Sequence[ProtocolTable]) -> list[ProtocolTable]:
    """Give leave-one-group-out families their groups.

    Three or more protocols with the same classes whose test sets are disjoint and together hold every clip of the
    family leave one group out each: a clip's group is then the protocol that tests on it, so that a part held out of
    a training split can be a whole subject.
    """
    out = list(tables)
    for classes in {t.labels.classes for t in tables}:
        family = [i for i, t in enumerate(tables) if t.labels.classes == classes and (t.split == Split.TEST).any()]
        tested = np.sum([tables[i].split == Split.TEST for i in family], axis=0)
        used = np.any([tables[i].split != Split.NONE for i in family], axis=0)
        if len(family) < 3 or not np.array_equal(tested == 1, used):
            continue
        groups = np.full(len(used), -1, np.int32)
        for group, i in enumerate(family):
            groups[tables[i].split == Split.TEST] = group
        names = tuple(f"tested by {tables[i].name}" for i in family)
        for i in family:
            out[i] = replace(tables[i], groups=groups, group_names=names, group_kind="left-out group")
    return out
