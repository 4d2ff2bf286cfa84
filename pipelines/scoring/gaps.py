"""What the gaps between training, held-out and test clips say of a run, and what to try next."""

from __future__ import annotations

from collections.abc import Sequence

from ifcar.pipelines.scoring.scores import Metrics

WIDE = 0.10  # a gap of fewer points is not spoken of
STANDARD_ERRORS = 2.0  # nor one that a draw of so few clips explains
LOW = 0.60  # training clips below this are not learned

NOT_LEARNED = (
    "the training clips are not learned: try another head (`ifcar list heads`), more steps (--min-steps), or a cache "
    "with more slots (--instances) or of tuned features (`ifcar finetune`)"
)
OVERFITTED = (
    "the training clips are learned far better than others: try a cache with augmented views if this one has none "
    "(--augmented-views), another --preset (tuned where the head has it, or small), or more dropout (--set)"
)
OTHER_CLIPS = (
    "the test clips differ from the training clips: try what depends less on appearance (--streams layout), or "
    "another head (`ifcar list heads`)"
)
NO_GAP = "no gap beyond what a draw of so few clips explains"


def describe_gaps(metrics: Sequence[Metrics]) -> str:
    """Return one line on a run's gaps and what to try; empty where a part has no measure.

    The first rule that holds is said: training clips below `LOW`; held-out clips, or test clips where none are held
    out, below training clips; test clips below held-out clips.

    Args:
        metrics: of the parts "train" and "test", and "held_out" where there is one.
    """
    scores = {m.split: (m.primary, m.n) for m in metrics if m.primary is not None}
    if "train" not in scores or "test" not in scores:
        return ""
    parts = [name for name in ("train", "held_out", "test") if name in scores]
    said = ", ".join(f"{name.replace('_', '-')} {100 * float(scores[name][0] or 0):.1f}" for name in parts)
    train, test = scores["train"], scores["test"]
    if float(train[0] or 0) < LOW:
        return f"gap: {said}; {NOT_LEARNED}"
    held_out = scores.get("held_out")
    if _wide(train, test if held_out is None else held_out):
        return f"gap: {said}; {OVERFITTED}"
    if held_out is not None and _wide(held_out, test):
        return f"gap: {said}; {OTHER_CLIPS}"
    return f"gap: {said}; {NO_GAP}"


def _wide(higher: tuple[float | None, int], lower: tuple[float | None, int]) -> bool:
    """Return whether one share is above the other by more than `WIDE` and by more than its standard error explains."""
    (a, n), (b, m) = ((float(share or 0), count) for share, count in (higher, lower))
    error: float = (a * (1 - a) / n + b * (1 - b) / m) ** 0.5
    return a - b > max(WIDE, STANDARD_ERRORS * error)
