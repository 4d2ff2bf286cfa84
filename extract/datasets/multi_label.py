"""Multi-label protocol tables: from the labels of each clip, and from split files that list several actions a clip.

splits/PROTOCOL/labels.json      {"Moving something up": 5, …}
splits/PROTOCOL/train.json       [{"id", "actions": [{"template", "start_sec", "end_sec", …}, …]}, …]
splits/PROTOCOL/validation.json  the same; these are the test clips
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ifcar.cache.schema import ProtocolTable, Split
from ifcar.errors import InputError
from ifcar.extract.datasets.splits import read_json, template_class

PARTS = {"train.json": Split.TRAIN, "validation.json": Split.TEST}


def multi_label_table(
    name: str,
    classes: Sequence[str],
    clip_ids: Sequence[str],
    labels: Mapping[str, Collection[int]],
    split: Mapping[str, Split],
    groups: Mapping[str, str] | None = None,
    group_kind: str = "",
) -> ProtocolTable:
    """Return a protocol over these clips.

    Args:
        name: the protocol's name.
        classes: K class names.
        clip_ids: the cache's clips, in order.
        labels: the classes of a clip, by its id; may be empty.
        split: the part of a clip, by its id; a clip that it lacks is in none.
        groups: the group of a clip, by its id; used to hold out whole groups, see `ProtocolTable`.
        group_kind: what a group is.
    """
    targets = np.zeros((len(clip_ids), len(classes)), np.uint8)
    parts = np.zeros(len(clip_ids), np.uint8)
    own = np.full(len(clip_ids), -1, np.int32)
    numbers: dict[str, int] = {}
    for place, clip_id in enumerate(clip_ids):
        parts[place] = split.get(clip_id, Split.NONE)
        targets[place, list(labels.get(clip_id, ()))] = 1
        if groups is not None and clip_id in groups:
            own[place] = numbers.setdefault(groups[clip_id], len(numbers))
    return ProtocolTable(
        name=name,
        label_kind="multi",
        classes=tuple(classes),
        split=parts,
        targets=targets,
        groups=own,
        group_names=tuple(numbers),
        group_kind=group_kind if numbers else "",
    )


def absent_clips(name: str, split: Mapping[str, Split], clip_ids: Sequence[str]) -> list[str]:
    """Return one line for each part of a protocol that lists clips which are not in the data."""
    known = set(clip_ids)
    notes = []
    for part in (Split.TRAIN, Split.TEST):
        absent = sum(own == part and clip_id not in known for clip_id, own in split.items())
        if absent:
            notes.append(f"protocol {name}: {absent} {part.name.lower()} clips are not in the data")
    return notes


def read_multi_protocols(splits: Path, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
    """Read every protocol folder below `splits`; see `ifcar.extract.datasets.splits.read_protocols`."""
    tables, notes = [], []
    for folder in sorted(path for path in splits.iterdir() if path.is_dir()) if splits.is_dir() else []:
        targets = _read_targets(folder / "labels.json")
        labels: dict[str, set[int]] = {}
        split: dict[str, Split] = {}
        for name, part in PARTS.items():
            for clip_id, actions in _entries(folder / name):
                if clip_id in split:
                    raise InputError(f"{folder / name}: clip {clip_id!r} is listed twice; a clip is in one part once")
                split[clip_id] = part
                labels[clip_id] = {_target(folder / name, clip_id, action, targets) for action in actions}
        tables.append(multi_label_table(folder.name, list(targets), clip_ids, labels, split))
        notes += absent_clips(folder.name, split, clip_ids)
    return tables, notes


def _read_targets(path: Path) -> dict[str, int]:
    content = read_json(path)
    if not isinstance(content, dict) or sorted(content.values()) != list(range(len(content))):
        raise InputError(f"{path}: expected a JSON object {{class name: number}} with the numbers from 0, each once")
    return dict(sorted(content.items(), key=lambda item: int(item[1])))


def _entries(path: Path) -> list[tuple[str, list[Any]]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a JSON list of clips, found {type(content).__name__}")
    entries = []
    for place, entry in enumerate(content):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise InputError(f"{path}: entry {place} has no text 'id'")
        if not isinstance(entry.get("actions"), list):
            raise InputError(f"{path}: clip {entry['id']!r} has no list 'actions'")
        entries.append((entry["id"], entry["actions"]))
    return entries


def _target(path: Path, clip_id: str, action: Any, targets: Mapping[str, int]) -> int:
    template = action.get("template") if isinstance(action, dict) else None
    if not isinstance(template, str):
        raise InputError(f"{path}: an action of clip {clip_id!r} has no text 'template'")
    name = template_class(template)
    if name not in targets:
        raise InputError(f"{path}: clip {clip_id!r} has class {name!r}, which its labels.json does not list")
    return targets[name]
