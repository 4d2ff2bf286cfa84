"""A diagnosis as a table to read: on a terminal, and in the report."""

from __future__ import annotations

import numpy as np

from ifcar.pipelines.comparison.columns import NONE, Column, interval, mean_and_deviation, p_text, points
from ifcar.pipelines.diagnosis.store import Diagnosis, DiagnosisRow
from ifcar.pipelines.labels.contract import MEASURES

NUM_CLASSES = 2  # that a row names


def columns_of(diagnosis: Diagnosis) -> list[Column[DiagnosisRow]]:
    """Return the columns that the rows of a diagnosis fill, in order."""
    return [
        Column("intervention", lambda row: row.name),
        Column(
            MEASURES[diagnosis.metric],
            lambda row: mean_and_deviation(row.primary) if row.primary else NONE,
            lambda row: float(np.mean(row.primary)) if row.primary else None,
        ),
        Column("Δ", _difference, lambda row: None if row.against is None else row.against.difference),
        Column("p (Holm)", lambda row: p_text(row.p_corrected), lambda row: row.p_corrected),
        Column("falls most", lambda row: largest_falls(diagnosis, row)),
        Column("a fall means", lambda row: row.fall or NONE),
    ]


def caption(diagnosis: Diagnosis) -> str:
    """Return what the columns mean, in one paragraph."""
    several = len(diagnosis.seeds) > 1
    runs = f"mean ± sample standard deviation over {len(diagnosis.seeds)} seeds" if several else "one run"
    return (
        f"The same weights on {diagnosis.n:,} test clips of {diagnosis.task}, {MEASURES[diagnosis.metric]} in percent, "
        f"{runs}. Δ: difference in points to the clips as they are, its 95 % interval over clips, and p of a paired "
        "bootstrap over clips, corrected by Holm's method over all interventions. Unchanged: no score of any clip "
        "changes. Not read: the head reads nothing that is changed, which says nothing of the data. Falls most: the "
        "classes that lose most, in points."
    )


def seen_sentence(diagnosis: Diagnosis) -> str:
    """Return how clips of unseen pairs score beside those of seen pairs; empty where there are not both."""
    own = diagnosis.seen
    if own is None:
        return ""
    return (
        f"Class–{own.kind} pairs: {own.measure} is {mean_and_deviation(own.seen)} on {own.num_seen} test clips all of "
        f"whose pairs training shows, and {mean_and_deviation(own.unseen)} on the other {own.num_unseen}: "
        f"{points(own.difference)} {interval(*own.difference_interval)}. The two parts hold other clips and other "
        "shares of the classes."
    )


def largest_falls(diagnosis: Diagnosis, row: DiagnosisRow) -> str:
    """Return the classes that fall most under an intervention, with the points; none where none falls."""
    if row.against is None:
        return NONE
    falls = [(name, change) for name, change in diagnosis.class_changes(row).items() if change < 0]
    return "; ".join(f"{name} {points(change)}" for name, change in falls[:NUM_CLASSES]) or NONE


def _difference(row: DiagnosisRow) -> str:
    if row.state != "measured":
        return row.state
    return (
        NONE
        if row.against is None
        else f"{points(row.against.difference)} {interval(row.against.low, row.against.high)}"
    )
