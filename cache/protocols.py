"""Protocols: splits, groups and label spaces over the clips of a cache, and the form in which they are stored.

A protocol's folder holds `split`, `groups` and the `targets` of its first label space, whose kind and classes are
attributes. A further space NAME has its targets in `targets_NAME` and its attributes under `further`. What a property
is by default is not stored, so that a protocol of one plain space has the form that it has always had.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.clips import ClipTable
from ifcar.cache.schema import Split
from ifcar.errors import InputError, nearest_of

KindName = Literal["single", "multi"]
Over = Literal["clip", "instance"]
Unlabelled = Literal["last", "negative"]
TARGET_TYPES: Mapping[str, str] = {"single": "int16", "multi": "int8"}
UNKNOWN = -1
PREFERRED_PROTOCOL = "compositional"  # the one that a run takes where none is named
INDEPENDENT_KINDS = ("object",)  # of groups, see `ProtocolTable.shares_recordings`
UNNAMED = "labels"  # a label space without a name of its own
MAX_NAME = 100  # a run's folder is named after its protocol
_SPACE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_TARGETS, _NAMES = "targets", "instance_ids"


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """One set of classes, and what each clip or instance is among them.

    Args:
        name: for example "activity"; tells the spaces of a protocol apart.
        kind: "single" (one class) or "multi" (any number of classes).
        classes: K class names, in target order.
        targets: single: (num_clips,) int16 class numbers; multi: (num_clips, K) int8, 1 or 0. −1 means unknown: left
            out of the loss, of every measure and of its resamples. Over instances with a further axis N of slots after
            the clips'; a slot without an instance is unknown.
        over: what has labels, the "clip" or each "instance" in it. Slot n of a clip holds the n-th of the tracks that
            `Tracks.keep` keeps, which is the data set's own order where all are subjects in every annotated frame.
        unlabelled: where a clip without any label stands in a multi-label ranking: "last", whatever it scores, as in
            Charades' evaluation; or where it scores, as a "negative" of every class.
        instance_ids: over instances: (num_clips, N) text, "" for a slot without an instance; else None.
    """

    name: str = UNNAMED
    kind: KindName
    classes: tuple[str, ...]
    targets: NDArray[Any]
    over: Over = "clip"
    unlabelled: Unlabelled = "last"
    instance_ids: NDArray[np.object_] | None = None


@dataclass(frozen=True, kw_only=True)
class ProtocolTable:
    """A way to train and test on the cached clips.

    Args:
        name: the protocol's folder name, for example "compositional".
        spaces: its label spaces, at least one; a run that names none learns the first.
        split: (num_clips,) uint8, values of `Split`.
        groups: (num_clips,) int32 index into `group_names`, −1 = no group; used to hold out a part of the
            training split by group (subject, object) and, where `shares_recordings`, to draw test clips together; never
            as an input.
        group_names: names of the groups.
        group_kind: what a group is, for example "object"; empty when there are none.
        whole: where the clips are one part of those of a cache, `protocol_digest` of the protocol over all; else empty.
    """

    name: str
    spaces: tuple[LabelSpace, ...]
    split: NDArray[np.uint8]
    groups: NDArray[np.int32]
    group_names: tuple[str, ...] = ()
    group_kind: str = ""
    whole: str = ""

    @property
    def shares_recordings(self) -> bool:
        """Whether clips of one group are alike beyond their labels: of one subject, person, video, scene, uploader.

        A word for an object groups clips of many persons and recordings; what a group of another kind is, is not known
        here, and its clips are taken to be alike.
        """
        return self.group_kind not in INDEPENDENT_KINDS and bool((self.groups >= 0).any())

    @property
    def labels(self) -> LabelSpace:
        """The first label space."""
        return self.spaces[0]

    def clips(self, split: Split) -> NDArray[np.int64]:
        """Return the numbers of the clips in `split`, ascending."""
        return np.flatnonzero(self.split == split)

    def of_clips(self, clips: NDArray[np.int64]) -> Self:
        """Return the protocol over these of its clips (n,), in this order."""
        spaces = (
            replace(
                own,
                targets=own.targets[clips],
                instance_ids=None if own.instance_ids is None else own.instance_ids[clips],
            )
            for own in self.spaces
        )
        return replace(self, spaces=tuple(spaces), split=self.split[clips], groups=self.groups[clips])

    def led_by(self, space: str | None, beside: Collection[str]) -> Self:
        """Return the protocol with one of its label spaces first, as `only`, and then those `beside` it."""
        first = self.only(space)
        others = (own for own in self.spaces if own.name in beside and own.name != first.labels.name)
        return replace(self, spaces=(first.labels, *others))

    def only(self, space: str | None) -> Self:
        """Return the protocol with one of its label spaces; None takes the first.

        Raises:
            InputError: there is no such space.
        """
        known = {own.name: own for own in self.spaces}
        if space is not None and space not in known:
            raise InputError(f"protocol {self.name!r} has no label space {space!r}{nearest_of(space, known)}")
        return replace(self, spaces=(self.labels if space is None else known[space],))


def protocol_attributes(table: ProtocolTable) -> dict[str, Any]:
    """Return the part of a protocol table that is stored as attributes."""
    further = [{"name": space.name, **_space_attributes(space)} for space in table.spaces[1:]]
    return {
        **_space_attributes(table.labels),
        **({} if table.labels.name == _default("name") else {"space": table.labels.name}),
        "group_names": list(table.group_names),
        "group_kind": table.group_kind,
        **({"further": further} if further else {}),
        **({"whole": table.whole} if table.whole else {}),
    }


def protocol_arrays(table: ProtocolTable) -> dict[str, NDArray[Any]]:
    """Return the part of a protocol table that is stored as arrays over clips."""
    arrays: dict[str, NDArray[Any]] = {"split": table.split, "groups": table.groups}
    for place, space in enumerate(table.spaces):
        end = f"_{space.name}" if place else ""
        arrays[_TARGETS + end] = space.targets
        if space.instance_ids is not None:
            arrays[_NAMES + end] = space.instance_ids
    return arrays


def protocol_digest(table: ProtocolTable) -> str:
    """Return a SHA-256 of all that a protocol states: labels, splits and groups of every clip."""
    digest = hashlib.sha256(json.dumps([table.name, protocol_attributes(table)], sort_keys=True).encode())
    for name, values in sorted(protocol_arrays(table).items()):
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(json.dumps(values.tolist()).encode() if values.dtype == object else values.tobytes())
    return digest.hexdigest()


def array_names(attributes: Mapping[str, Any]) -> list[str]:
    """Return the names of the arrays that go with a protocol's stored attributes."""
    spaces = {"": attributes, **{f"_{own['name']}": own for own in attributes.get("further", ())}}
    names = [_TARGETS + end for end in spaces]
    return ["split", "groups", *names, *(_NAMES + end for end, own in spaces.items() if own.get("over") == "instance")]


def build_protocol(name: str, attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ProtocolTable:
    """Return the protocol table that stored attributes and arrays describe."""
    first = {**attributes, "name": attributes.get("space", _default("name"))}
    ends = ["", *(f"_{own['name']}" for own in attributes.get("further", ()))]
    return ProtocolTable(
        name=name,
        spaces=tuple(
            LabelSpace(
                name=own["name"],
                kind="multi" if own["label_kind"] == "multi" else "single",
                classes=tuple(own["classes"]),
                targets=arrays[_TARGETS + end],
                over=own.get("over", _default("over")),
                unlabelled=own.get("unlabelled", _default("unlabelled")),
                instance_ids=arrays.get(_NAMES + end),
            )
            for end, own in zip(ends, [first, *attributes.get("further", ())], strict=True)
        ),
        split=arrays["split"],
        groups=arrays["groups"],
        group_names=tuple(attributes["group_names"]),
        group_kind=attributes["group_kind"],
        whole=attributes.get("whole", ""),
    )


def check_protocols(protocols: Sequence[ProtocolTable], clips: ClipTable, num_slots: int) -> None:
    """Check names, shapes and types of protocol tables, and that none divides a segment.

    Args:
        protocols: the tables.
        clips: the cache's.
        num_slots: N, slots of a row.

    Raises:
        InputError: names the table and what is wrong with it.
    """
    names, num_clips = [table.name for table in protocols], len(clips.ids)
    for table in protocols:
        if names.count(table.name) > 1:
            raise InputError(f"protocol {table.name!r} is given twice; every protocol needs its own name")
        is_plain = table.name.isprintable() and not {"/", "\\"} & set(table.name) and len(table.name) <= MAX_NAME
        if not is_plain or table.name in {"", ".", "..", "zarr.json"}:
            raise InputError(f"protocol name {table.name!r:.200} is not usable as a folder name")
        spaces = [space.name for space in table.spaces]
        if len(set(spaces)) < len(spaces) or not spaces or not all(_SPACE_NAME.fullmatch(own) for own in spaces):
            raise InputError(
                f"protocol {table.name!r}: label spaces are named {spaces}; expected at least one, each with a name of "
                "its own in small letters, digits, - and _"
            )
        _check_array(table.name, "split", table.split, "uint8", (num_clips,), len(Split) - 1)
        _check_array(table.name, "groups", table.groups, "int32", (num_clips,), len(table.group_names) - 1)
        for space in table.spaces:
            _check_space(table.name, space, num_clips, num_slots)
        _check_segments(table, clips)


def _check_segments(table: ProtocolTable, clips: ClipTable) -> None:
    """Refuse a protocol that puts clips of a segment into several parts or groups."""
    if clips.segments == clips.ids:
        return
    used = np.flatnonzero(table.split != Split.NONE)
    for what, values in (("part", table.split), ("group", table.groups)):
        first: dict[str, int] = {}
        for clip in used.tolist():
            other = first.setdefault(clips.segments[clip], clip)
            if values[clip] != values[other]:
                raise InputError(
                    f"protocol {table.name!r}: clips {clips.ids[other]!r} and {clips.ids[clip]!r} of the segment "
                    f"{clips.segments[clip]!r} are not in the same {what}; expected each segment whole in one"
                )


def _check_space(table: str, space: LabelSpace, num_clips: int, num_slots: int) -> None:
    slots = space.targets.shape[1:2] if space.over == "instance" else ()
    if (space.instance_ids is not None) != (space.over == "instance"):
        raise InputError(f"protocol {table!r}: {space.name} is over {space.over}s; instance ids belong to instances")
    if space.instance_ids is not None and space.instance_ids.shape != (num_clips, *slots):
        raise InputError(
            f"protocol {table!r}: instance ids of {space.name} are {space.instance_ids.shape}, expected "
            f"{(num_clips, *slots)}"
        )
    if space.instance_ids is not None and len(ids := space.instance_ids[space.instance_ids != ""]) > len({*ids}):
        raise InputError(
            f"protocol {table!r}: {space.name} names an instance twice; expected each with an id of its own"
        )
    if slots and slots[0] > num_slots:
        raise InputError(f"protocol {table!r}: {space.name} has labels of {slots[0]} slots; a row has {num_slots}")
    multi = space.kind == "multi"
    shape = (num_clips, *slots, *((len(space.classes),) if multi else ()))
    # caches of format version 1 hold the same labels unsigned
    dtype = "uint8" if multi and space.targets.dtype == np.uint8 else TARGET_TYPES[space.kind]
    _check_array(table, f"targets of {space.name}", space.targets, dtype, shape, 1 if multi else len(space.classes) - 1)


def _check_array(table: str, name: str, values: NDArray[Any], dtype: str, shape: tuple[int, ...], highest: int) -> None:
    if values.dtype != np.dtype(dtype) or values.shape != shape:
        raise InputError(f"protocol {table!r}: {name} is {values.dtype} {values.shape}, expected {dtype} {shape}")
    if values.size and (values.min() < UNKNOWN or values.max() > highest):
        raise InputError(
            f"protocol {table!r}: {name} lie in {values.min()}…{values.max()}, expected {UNKNOWN}…{highest}"
        )


def _space_attributes(space: LabelSpace) -> dict[str, Any]:
    own = {name: getattr(space, name) for name in ("over", "unlabelled")}
    changed = {name: value for name, value in own.items() if value != _default(name)}
    return {"label_kind": space.kind, "classes": list(space.classes), **changed}


def _default(name: str) -> Any:
    return next(field.default for field in fields(LabelSpace) if field.name == name)
