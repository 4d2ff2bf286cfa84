"""Clips with more tracks than a cache has instance slots."""

from __future__ import annotations

from ifcar.counts import count_of
from ifcar.pipelines.extraction.sources import Source

MANY_SLOTS = 16  # beyond this, more slots are no advice: a row grows with every one


def slot_note(source: Source, num_slots: int) -> str:
    """Return one line when clips have more tracks than slots, with what keeps them all; empty when none has.

    Boxes of a file of proposals are no tracks; their reader counts them.
    """
    if source.proposals is not None:
        return ""
    counts = source.track_counts()
    most, over = int(counts.max()), int((counts > num_slots).sum())
    if not over:
        return ""
    line = f"{count_of(over, 'has', of=f'{len(counts):,} clips')} more than {num_slots} tracks; "
    if most <= MANY_SLOTS:
        return line + f"--instances {most} keeps all"
    kept = counts.clip(max=num_slots).sum() / counts.sum()
    return line + f"{100 * kept:.0f} % of all tracks are kept, and the fullest clip has {most:,}"
