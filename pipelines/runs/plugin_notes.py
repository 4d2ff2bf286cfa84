"""What a run remembers of the plugins that it needs, plugin.json: for each kind its name, and where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifcar.cache.durable import write_atomic
from ifcar.extract.backbones.base import BACKBONES
from ifcar.extract.datasets.contract import DATASETS
from ifcar.heads.contract import HEADS
from ifcar.plugins import how_to_get
from ifcar.registry import Registry
from ifcar.text_files import read_text

NAME = "plugin.json"
REGISTRIES: tuple[Registry[Any], ...] = (HEADS, BACKBONES, DATASETS)


def note_plugins(folder: Path, used: Mapping[str, str]) -> None:
    """Add to a run's note which of these are plugins; a run of ours alone has none.

    Args:
        folder: of the run.
        used: kind ("head", "backbone", "dataset") → registered name.
    """
    found = _read(folder)
    for registry in REGISTRIES:
        name = used.get(registry.kind, "")
        if origin := registry.origin(name):
            found[registry.kind] = {"name": name, **origin}
    if found:
        write_atomic(folder / NAME, (json.dumps(found, indent=1) + "\n").encode())


def advise_on_plugins(folder: Path) -> None:
    """Tell the registries what a run remembers, for the message where a plugin is not there."""
    found = _read(folder)
    for registry in REGISTRIES:
        note = found.get(registry.kind)
        if isinstance(note, Mapping) and isinstance(note.get("name"), str):
            registry.advise(note["name"], f"{folder} was made with a plugin; {how_to_get(note)}")


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(folder / NAME))
    except (OSError, ValueError):
        return {}  # a damaged note only makes a message shorter
    return found if isinstance(found, dict) else {}
