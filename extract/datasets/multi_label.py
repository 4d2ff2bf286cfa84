"""Multi-label protocol tables, from split files that list several actions a clip.

splits/PROTOCOL/labels.json      {"Moving something up": 5, …}
splits/PROTOCOL/train.json       [{"id", "actions": [{"template", "start_sec", "end_sec", …}, …]}, …]
splits/PROTOCOL/validation.json  the same; these are the test clips
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split
from ifcar.data_files import subfolders
from ifcar.errors import InputError
from ifcar.extract.datasets.label_tables import incomplete, multi_labels, protocol_table
from ifcar.extract.datasets.splits import ProtocolFiles, class_number, read_entries


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
    table = protocol_table(folder.name, [multi_labels(classes, clip_ids, labels)], clip_ids, split)
    notes += incomplete(table, split, clip_ids)
    return table


def _actions(path: Path, entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a clip shows. Raises InputError when it is no list of mappings."""
    actions = entry.get("actions")
    if not isinstance(actions, list) or not all(isinstance(action, dict) for action in actions):
        raise InputError(f"{path}: clip {entry['id']!r:.80} has no list 'actions' of mappings with a template")
    return actions
