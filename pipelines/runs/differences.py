"""In what two caches or runs differ, the likeliest to move a number first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ifcar.counts import count_of
from ifcar.pipelines.runs.facts import KINDS, Fact, Facts, Kind

PLACES = {name: place for place, name in enumerate(KINDS)}
NONE = "–"
SUMS = ("fingerprint", "protocol_digest")  # over other facts, which say more: told where none of those differs


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """In what two sides differ.

    Args:
        fact: the side's that has it, for its name and kind.
        a: the first side's value as text.
        b: the second side's.
    """

    fact: Fact
    a: str
    b: str


def differences(a: Facts, b: Facts) -> list[Difference]:
    """Return in what two sides differ, by how likely it moves a number, the likeliest first.

    A kind of facts that one side states nothing of is left out, see `silent_kinds`.
    """
    ours, theirs = ({fact.name: fact for fact in side.facts} for side in (a, b))
    kinds = {fact.kind for fact in a.facts} & {fact.kind for fact in b.facts}
    found = _clip_differences(a, b)
    other_head = "head" in ours and "head" in theirs and ours["head"].value != theirs["head"].value
    alone: list[list[str]] = [[], []]  # options that only one of two heads has
    for name in {**ours, **theirs}:
        sides = ours.get(name), theirs.get(name)
        fact = sides[0] or sides[1]
        assert fact is not None
        values = [None if side is None else side.value for side in sides]
        if fact.kind not in kinds or values[0] == values[1] or not (a.knows(name) and b.knows(name)):
            continue
        if fact.kind == "versions" and None in sides:  # not recorded on one side
            continue
        if other_head and fact.entry == "options" and None in sides:
            alone[sides[0] is None].append(f"{name.removeprefix('options.')} {text(fact.value)}")
            continue
        found.append(Difference(fact=fact, a=text(values[0], name), b=text(values[1], name)))
    if any(alone):
        fact = Fact(name="options of its own", value=None)
        found.append(Difference(fact=fact, a=", ".join(alone[0]) or NONE, b=", ".join(alone[1]) or NONE))
    if any(d.fact.kind in ("data", "backbone", "views") and d.fact.name not in SUMS for d in found):
        found = [d for d in found if d.fact.name not in SUMS]
    return sorted(found, key=lambda d: (d.fact.moves, PLACES[d.fact.entry]))


def silent_kinds(a: Facts, b: Facts) -> dict[str, list[Kind]]:
    """Return which kinds of facts only the other side states, for "a" and for "b"."""
    kinds = [[*dict.fromkeys(fact.kind for fact in side.facts)] for side in (a, b)]
    return {"a": [k for k in kinds[1] if k not in kinds[0]], "b": [k for k in kinds[0] if k not in kinds[1]]}


def _clip_differences(a: Facts, b: Facts) -> list[Difference]:
    found = []
    for name in a.clips.keys() & b.clips.keys():
        ours, theirs = a.clips[name], b.clips[name]
        shared = ours.keys() & theirs.keys()
        if ours.keys() != theirs.keys():
            said = [f"{len(side):,}, {len(side) - len(shared):,} of them here alone" for side in (ours, theirs)]
            found.append(Difference(fact=Fact(name=name, value=len(ours)), a=said[0], b=said[1]))
        changed = [clip for clip in ours if clip in shared and ours[clip] != theirs[clip]]
        if changed:
            first = changed[0]
            count = count_of(len(changed), "clip has another", "clips have others")
            said = [f"{count}, the first {first}: {s[first]}" for s in (ours, theirs)]
            fact = Fact(name=name.replace("clips", "labels"), value=len(changed))
            found.append(Difference(fact=fact, a=said[0], b=said[1]))
    return found


def text(value: Any, name: str = "") -> str:
    """Return a fact's value for people: digests shortened, long lists counted."""
    if name == "classes" and isinstance(value, Sequence):
        return f"{len(value)}: {', '.join(map(str, value[:3]))}{', …' if len(value) > 3 else ''}"
    if isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef"):
        return value[:12]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or NONE
    return NONE if value is None else str(value)
