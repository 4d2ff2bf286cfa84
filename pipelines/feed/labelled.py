"""What has labels in one part of a protocol: its clips, or the instances in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.protocols import UNKNOWN, ProtocolTable
from ifcar.cache.schema import Split


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """n clips or instances with labels, by clip and slot.

    Args:
        clips: (n,) clip numbers, ascending.
        slots: (n,) the slot of each instance; None where the label space is over clips.
        names: (n,) ids of the clips or instances.
        targets: (n,) or (n, K) of the label space, as they are stored.
    """

    clips: NDArray[np.int64]
    slots: NDArray[np.int64] | None
    names: NDArray[np.str_]
    targets: NDArray[Any]


def read_labelled(protocol: ProtocolTable, split: Split, clip_ids: Sequence[str]) -> Labelled:
    """Return what has labels in a split of a protocol's first label space.

    What is unknown altogether is not in it: a clip without a class, an empty slot.

    Args:
        protocol: its table.
        split: the part.
        clip_ids: the cache's clips, in order.
    """
    clips, space = protocol.clips(split), protocol.labels
    targets, slots = space.targets[clips], None
    if space.instance_ids is None:
        names = np.array([clip_ids[clip] for clip in clips], np.str_)
    else:
        ids = space.instance_ids[clips]
        places, slots = np.nonzero(ids != "")
        clips, targets, names = clips[places], targets[places, slots], ids[places, slots].astype(np.str_)
    known = targets != UNKNOWN
    known = known if space.kind == "single" else known.any(axis=1)
    return Labelled(
        clips=clips[known],
        slots=None if slots is None else slots[known],
        names=names[known],
        targets=targets[known],
    )
