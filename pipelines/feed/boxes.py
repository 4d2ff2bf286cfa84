"""Heads that read instances, and clips without a single one: such a head can only learn how often each class occurs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ifcar.cache.reader import CacheReader
from ifcar.errors import InputError
from ifcar.pipelines.feed.examples import Examples


def check_boxes(
    reader: CacheReader, head: str, arrays: Sequence[str], trained: Examples, tested: Examples
) -> list[str]:
    """Check that a head that reads instances is trained on some.

    Args:
        reader: the cache.
        head: its name.
        arrays: what it reads.
        trained: the training clips; clips without boxes among others are no fault.
        tested: the test clips.

    Returns:
        A note where no test clip has a box, or where instances have labels and the head does not read instances.

    Raises:
        InputError: no training clip has one.
    """
    if not reader.spec.reads_instances(arrays):
        same = "all instances of a clip get the same scores"
        return [] if trained.orders is None else [f"head {head!r} reads no instances, which have the labels: {same}"]
    categories = reader.table("categories")
    if not categories[trained.rows[trained.usable]].any():
        raise no_boxes(reader.path, head, f"{len(trained)} training clips")
    if not categories[tested.rows[tested.usable]].any():
        return [f"none of the {len(tested)} test clips has a box: a head that reads instances sees nothing of them"]
    return []


def no_boxes(data: Path, head: str, clips: str) -> InputError:
    """Return the error of a head that reads instances of clips that have none."""
    return InputError(
        f"{data}: none of the {clips} has a box, so that there is nothing to go by for head {head!r}, which reads "
        "instances; extract with boxes (the data set's, or --boxes FILE), or take a head that reads frames (i3d)"
    )
