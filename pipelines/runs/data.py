"""What a run was trained on, kept beside its weights: enough to read and use the run where the cache is not.

data.json   cache dimensions, the cache's identity (dataset, views, backbone, weights), protocol and class names
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.durable import write_atomic
from ifcar.cache.protocols import UNNAMED, KindName, Over, ProtocolTable, Unlabelled
from ifcar.cache.schema import Provenance, Split, Status
from ifcar.cache.stored_spec import parse_spec
from ifcar.cache.streams import stream_spec
from ifcar.errors import InputError, MissingDataError
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.extraction.environment import software
from ifcar.pipelines.labels.contract import LabelKind
from ifcar.pipelines.labels.kinds import label_kind
from ifcar.pipelines.runs.plugin_notes import note_plugins
from ifcar.text_files import read_text

NAME = "data.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunData:
    """The facts about a run's data.

    Args:
        spec: the cache's arrays, for which the head was built.
        identity: the cache's identity: everything that changes a feature's value.
        protocol: the protocol's name.
        classes: K class names, in target order.
        num_train: training clips that the protocol lists and the cache holds.
        num_test: the same for test clips.
        label_kind: "single" or "multi", see `LabelSpace`.
        unlabelled: where clips without any label rank, see `LabelSpace`.
        labels: the label space's name.
        over: what has labels, see `LabelSpace`.
        notes: one line on everything in which the training was not what was asked for.
        group_kind: what the protocol's groups are, for example "subject"; empty when there are none.
        made_with: what the features were made with, as the cache records it; empty in runs of before.
        trained_with: what the run was trained with.
        streams: the identity of the cache behind each stream of a join; empty of one cache, and in runs of before.
    """

    spec: CacheSpec
    identity: Mapping[str, Any]
    protocol: str
    classes: tuple[str, ...]
    num_train: int
    num_test: int
    label_kind: KindName = "single"
    unlabelled: Unlabelled = "last"
    labels: str = UNNAMED
    over: Over = "clip"
    notes: tuple[str, ...] = ()
    group_kind: str = ""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    trained_with: Mapping[str, Any] = field(default_factory=dict)
    streams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of_protocol(
        cls,
        spec: CacheSpec,
        provenance: Provenance,
        protocol: ProtocolTable,
        notes: Sequence[str] = (),
        streams: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> RunData:
        """Return the facts about a protocol of the cache that has these arrays and this provenance, trained here."""
        return cls(
            spec=spec,
            identity=provenance.identity,
            protocol=protocol.name,
            classes=protocol.labels.classes,
            num_train=len(protocol.clips(Split.TRAIN)),
            num_test=len(protocol.clips(Split.TEST)),
            label_kind=protocol.labels.kind,
            unlabelled=protocol.labels.unlabelled,
            labels=protocol.labels.name,
            over=protocol.labels.over,
            notes=tuple(notes),
            group_kind=protocol.group_kind,
            made_with=provenance.environment,
            trained_with=software(),
            streams=streams,
        )

    def is_same(self, other: RunData) -> bool:
        """Return whether two runs have the same data, whatever notes they took and what trained them."""
        own, its = (replace(data, notes=(), made_with={}, trained_with={}, streams={}) for data in (self, other))
        return own == its

    def of_stream(self, stream: str) -> RunData:
        """Return the facts as of one stream's cache by itself; "" is that of a run from one cache.

        Raises:
            InputError: an earlier version made the run, which did not keep what its streams are.
        """
        if not stream:
            return self
        if stream not in self.streams:
            raise InputError(f"data.json does not state what the stream {stream!r} is made of; train the run again")
        return replace(self, spec=stream_spec(self.spec, stream), identity=self.streams[stream])

    @property
    def kind(self) -> LabelKind:
        """The kind of the labels."""
        return label_kind(self.label_kind, self.unlabelled)


def write_run_data(folder: Path, data: RunData) -> None:
    """Write data.json, and note which plugins made the features."""
    write_atomic(folder / NAME, (json.dumps(to_plain(data), indent=1, ensure_ascii=False) + "\n").encode())
    used = {kind: str(data.identity.get(kind, {}).get("name", "")) for kind in ("backbone", "dataset")}
    note_plugins(folder, {kind: name.partition(":")[0] for kind, name in used.items()})


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
        spec = parse_spec(content.pop("spec"))
        texts = {name: tuple(content.get(name, ())) for name in ("classes", "notes")}
        return RunData(**{**content, **texts, "spec": spec})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); train the run again") from error


def protocol_digest(status: NDArray[np.uint8], protocol: ProtocolTable, num_augmented_views: int = 0) -> str:
    """Return the SHA-256 over a protocol's table and the state of every row: what training sees beside features.

    Args:
        status: (R,) values of `Status`.
        protocol: the table.
        num_augmented_views: A; those of clips that this protocol does not train on, which another may want, count as
            not wanted.
    """
    if num_augmented_views:
        status = status.reshape(len(protocol.split), -1).copy()
        status[protocol.split != Split.TRAIN, -num_augmented_views:] = Status.NOT_WANTED
    digest = hashlib.sha256()
    space = protocol.labels
    facts = [protocol.name, space.kind, list(space.classes), list(protocol.group_names)]
    if (space.over, space.unlabelled) != ("clip", "last"):  # what a protocol of an earlier version could not be
        facts += [space.over, space.unlabelled]
    digest.update(json.dumps(facts, ensure_ascii=False).encode())
    for array in (protocol.split, space.targets, protocol.groups, status):
        digest.update(array.tobytes())
    for further in protocol.spaces[1:]:  # learned beside the first
        digest.update(json.dumps([further.name, further.kind, list(further.classes)], ensure_ascii=False).encode())
        digest.update(further.targets.tobytes())
    if space.instance_ids is not None:
        digest.update(json.dumps(space.instance_ids.tolist(), ensure_ascii=False).encode())
    return digest.hexdigest()
