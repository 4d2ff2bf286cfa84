"""What a run was trained on, kept beside its weights: enough to read and use the run where the cache is not.

data.json   cache dimensions, the cache's identity (dataset, views, backbone, weights), protocol and class names
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.durable import write_atomic
from ifcar.cache.schema import CacheSpec, ProtocolTable
from ifcar.errors import InputError, MissingDataError
from ifcar.pipelines.configs import to_plain
from ifcar.text_files import read_text

NAME = "data.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunData:
    """The facts about a run's data.

    Args:
        spec: the cache's dimensions, from which the head was built.
        identity: the cache's identity: everything that changes a feature's value.
        protocol: the protocol's name.
        classes: K class names, in target order.
        num_train: training clips that the protocol lists and the cache holds.
        num_test: the same for test clips.
        label_kind: "single" or "multi", see `ProtocolTable`.
        notes: one line on everything in which the training was not what was asked for.
    """

    spec: CacheSpec
    identity: Mapping[str, Any]
    protocol: str
    classes: tuple[str, ...]
    num_train: int
    num_test: int
    label_kind: Literal["single", "multi"] = "single"
    notes: tuple[str, ...] = ()


def write_run_data(folder: Path, data: RunData) -> None:
    """Write data.json."""
    write_atomic(folder / NAME, (json.dumps(to_plain(data), indent=1, ensure_ascii=False) + "\n").encode())


def read_run_data(folder: Path) -> RunData:
    """Read data.json.

    Raises:
        MissingDataError: the run has none.
        InputError: it is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; train the run again with this version")
    try:
        content = json.loads(read_text(path))
        spec = dict(content.pop("spec"))
        if spec.get("grid_size") is not None:
            spec["grid_size"] = tuple(spec["grid_size"])
        texts = {name: tuple(content.get(name, ())) for name in ("classes", "notes")}
        return RunData(**{**content, **texts, "spec": CacheSpec(**spec)})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); train the run again") from error


def protocol_digest(status: NDArray[np.uint8], protocol: ProtocolTable) -> str:
    """Return the SHA-256 over a protocol's table and the state of every row: what training sees beside features."""
    digest = hashlib.sha256()
    facts = [protocol.name, protocol.label_kind, list(protocol.classes), list(protocol.group_names)]
    digest.update(json.dumps(facts, ensure_ascii=False).encode())
    for array in (protocol.split, protocol.targets, protocol.groups, status):
        digest.update(array.tobytes())
    return digest.hexdigest()
