"""Which training clips are held out to choose a stopping point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.protocols import ProtocolTable
from ifcar.counts import count_of
from ifcar.pipelines.feed.examples import Examples

ROUNDING = 1e-9  # 18 of 80 clips are not more than 1.5 × 0.15 of them
NEAR = 1.5  # times the share asked for, and half of it: whole groups in between are near enough
LARGE = 0.4  # of the clips, which whole groups may take where they are so large: one subject of three
FEWEST_GROUPS = 3


@dataclass(frozen=True, kw_only=True)
class Division:
    """A training split in two parts.

    Args:
        fitting: the clips to train on, never empty.
        held_out: the clips that choose the stopping point; None where there are none.
        note: one line on a part that is not what was asked for; empty where it is.
    """

    fitting: Examples
    held_out: Examples | None = None
    note: str = ""


def hold_out(train: Examples, protocol: ProtocolTable, share: float) -> Division:
    """Divide the training clips in a fitting part and a held-out part; the same for every run of a protocol.

    Whole groups are held out where the protocol has at least three of them among the training clips, so that the
    held-out part resembles a test on unseen groups: of half the share asked for to 1.5 times as many clips, and never
    over half of them unless more was asked for. Where the groups are too large for that, up to 40 % of the clips.
    Where they do not allow that either, single clips. Which ones is drawn with a fixed seed. The clips of a segment and
    the instances of a clip stay together.

    Args:
        train: the training clips.
        protocol: gives the groups.
        share: of the clips to hold out; 0 holds none out.
    """
    if not share:
        return Division(fitting=train)
    num_segments = len(np.unique(train.segments))
    if num_segments == 1:
        note = "no held-out part: there is one training clip; all epochs are trained and the last weights are kept"
        return Division(fitting=train, note=note)
    groups = protocol.groups[train.clips]
    names, sizes = np.unique(groups, return_counts=True)
    kind = f"{protocol.group_kind or 'group'}s"
    if (groups >= 0).all() and len(names) >= FEWEST_GROUPS:
        for limit in (min(NEAR * share, max(share, 0.5)), max(share, LARGE)):
            chosen = _whole_groups(groups, share, limit)
            if chosen.mean() > NEAR * share * (1 + ROUNDING):
                return _divide(train, chosen, share, f"for the {len(names)} {kind} are that large")
            if chosen.mean() >= share / 2:
                return _divide(train, chosen, share)
        why = f"the largest of {len(names)} {kind} has {sizes.max()} of the clips"
    elif (groups >= 0).all():
        few = f"is one {kind[:-1]}, which cannot" if len(names) == 1 else f"are {len(names)} {kind}, of which none can"
        why = f"there {few} be spared"
    elif (groups < 0).all():
        why = "the protocol names none"
    else:
        why = f"{count_of(int((groups < 0).sum()), 'is', 'are', of='the clips')} of no known {kind[:-1]}"
    chosen = _whole_segments(train.segments, share)
    flattered = "both parts may show the same ones, which flatters the held-out part"
    return _divide(train, chosen, share, f"one by one and not by {kind}, for {why}; {flattered}")


def _whole_groups(groups: NDArray[np.int32], share: float, limit: float) -> NDArray[np.bool_]:
    """Return which clips are held out: groups in a random order, until their clips reach the share.

    A group that would exceed the limit is passed over, or takes the place of all before it where it alone comes nearer
    to the share. So less than half the share is returned only where no set of groups lies between that and the limit.
    """
    names, counts = np.unique(groups, return_counts=True)
    shares = dict(zip(names.tolist(), (counts / len(groups)).tolist(), strict=True))
    chosen: list[int] = []
    held = 0.0
    for group in np.random.default_rng(0).permutation(names).tolist():
        if held >= share - 1e-9:
            break
        own = shares[group]
        if held + own <= limit + 1e-9:
            chosen, held = [*chosen, group], held + own
        elif own <= limit + 1e-9 and abs(own - share) < abs(held - share):
            chosen, held = [group], own
    return np.isin(groups, chosen)


def _whole_segments(segments: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Return which examples are held out: segments in a random order, the fewest that come nearest to the share."""
    names, places, sizes = np.unique(segments, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(names))
    reached = sizes[order].cumsum()
    count = min(max(1, int(np.abs(reached - round(share * len(segments))).argmin()) + 1), len(names) - 1)
    chosen = np.zeros(len(names), np.bool_)
    chosen[order[:count]] = True
    held: NDArray[np.bool_] = chosen[places]
    return held


def _divide(train: Examples, chosen: NDArray[np.bool_], share: float, why: str = "") -> Division:
    """Divide the clips; `why` says what is not as it was asked for."""
    count = int(chosen.sum())
    found = f"{count} of {len(train)} training clips ({100 * count / len(train):.0f} %, asked for {100 * share:.3g} %)"
    return Division(
        fitting=train.part("fit", ~chosen),
        held_out=train.part("held_out", chosen),
        note=f"held out: {found}, {why}" if why else "",
    )
