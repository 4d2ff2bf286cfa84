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

from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Split
from ifcar.data_files import subfolders
from ifcar.errors import InputError
from ifcar.extract.datasets.label_tables import incomplete, protocol_table
from ifcar.extract.datasets.splits import ProtocolFiles, class_number, read_entries


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
    for place, clip_id in enumerate(clip_ids):
        targets[place, list(labels.get(clip_id, ()))] = 1
    space = LabelSpace(kind="multi", classes=tuple(classes), targets=targets)
    return protocol_table(name, space, clip_ids, split, groups, group_kind)


def read_multi_protocols(splits: Path, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
    """Read every protocol folder below `splits`; see `ifcar.extract.datasets.splits.read_protocols`."""
    notes: list[str] = []
    tables = [read_multi_protocol(folder, clip_ids, notes) for folder in subfolders(splits)]
    return [table for table in tables if table is not None], notes


def read_multi_protocol(folder: Path, clip_ids: Sequence[str], notes: list[str]) -> ProtocolTable | None:
    """Read one protocol's folder; see `ifcar.extract.datasets.splits.read_protocol`."""
    files = ProtocolFiles(name=folder.name)
    classes = files.read_classes(folder, notes)
    if classes is None:
        return None
    number_of = {name: number for number, name in enumerate(classes)}
    labels: dict[str, set[int]] = {}
    split: dict[str, Split] = {}
    for part, path in files.lists(folder, notes):
        for entry in read_entries(path):
            clip_id = entry["id"]
            if clip_id in split:
                raise InputError(f"{path}: clip {clip_id!r:.80} is listed twice; a clip is in one part once")
            split[clip_id] = part
            labels[clip_id] = {class_number(path, clip_id, own, number_of) for own in _actions(path, entry)}
    table = multi_label_table(folder.name, classes, clip_ids, labels, split)
    notes += incomplete(table, split, clip_ids)
    return table


def _actions(path: Path, entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a clip shows. Raises InputError when it is no list of mappings."""
    actions = entry.get("actions")
    if not isinstance(actions, list) or not all(isinstance(action, dict) for action in actions):
        raise InputError(f"{path}: clip {entry['id']!r:.80} has no list 'actions' of mappings with a template")
    return actions
