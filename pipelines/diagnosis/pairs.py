"""Seen against unseen pairs: whether training shows a test clip's class with its object, or what else a group is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.protocols import ProtocolTable
from ifcar.pipelines.comparison.statistics import bootstrap_interval, unpaired_interval
from ifcar.pipelines.diagnosis.store import SeenPairs
from ifcar.pipelines.feed.examples import Examples
from ifcar.pipelines.scoring.scores import Predictions, pooled_units


def pairs_seen(trained: Examples, tested: Examples, protocol: ProtocolTable) -> NDArray[np.int8]:
    """Return (n,) for each test example 1 where training shows all its pairs of class and group, 0 where not.

    −1 where it has no class or no group.
    """
    num_classes = len(protocol.labels.classes)
    seen = np.zeros((len(protocol.group_names), num_classes), np.bool_)
    groups, shown = protocol.groups[trained.clips], trained.kind.shown(trained.targets, num_classes)
    np.logical_or.at(seen, groups[groups >= 0], shown[groups >= 0])
    own, shows = protocol.groups[tested.clips], tested.kind.shown(tested.targets, num_classes)
    found = (~shows | seen[own]).all(axis=1) if len(seen) else np.zeros(len(own), np.bool_)
    return np.where((own >= 0) & shows.any(axis=1), found, -1).astype(np.int8)


def compare_pairs(
    predictions: Sequence[Predictions], trained: Examples, tested: Examples, protocol: ProtocolTable
) -> tuple[SeenPairs | None, str]:
    """Compare test clips of seen pairs with those of unseen ones.

    Args:
        predictions: of the test clips, of each run.
        trained: the training clips.
        tested: the test clips, in the order of the predictions.
        protocol: says which group a clip is of.

    Returns:
        The comparison, or None where there are not clips of both; and a line that says so, else empty.
    """
    lacks = "seen against unseen pairs: left out, for "
    if not protocol.group_kind:
        return None, f"{lacks}protocol {protocol.name!r} has no groups, as objects are"
    seen = pairs_seen(trained, tested, protocol)
    counts = int((seen == 1).sum()), int((seen == 0).sum())
    if not any(counts):
        return None, f"{lacks}no test clip has a class and a {protocol.group_kind}"
    if 0 in counts:
        verb = "shows" if counts[0] else "does not show"
        return None, f"{lacks}training {verb} the class–{protocol.group_kind} pairs of all {max(counts)} test clips"
    right = np.stack([p.kind.clip_scores(p.logits, p.targets) for p in predictions])
    segments, _ = pooled_units(predictions[:1])
    parts = [seen == 1, seen == 0]
    own_segments = [segments[part] for part in parts]
    means = [right[:, part].mean(axis=0) for part in parts]
    intervals = [bootstrap_interval(own, s) for own, s in zip(means, own_segments, strict=True)]
    return (
        SeenPairs(
            kind=protocol.group_kind,
            measure=predictions[0].kind.clip_measure[1],
            num_seen=counts[0],
            num_unseen=counts[1],
            seen=tuple(map(float, right[:, parts[0]].mean(axis=1))),
            unseen=tuple(map(float, right[:, parts[1]].mean(axis=1))),
            seen_interval=intervals[0],
            unseen_interval=intervals[1],
            difference=float(means[1].mean() - means[0].mean()),
            difference_interval=unpaired_interval(means[1], means[0], own_segments[1], own_segments[0]),
        ),
        "",
    )
