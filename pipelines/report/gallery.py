"""The gallery: which clips it shows, and what A and B say about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.pipelines.progress import Progress
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.strips import Strip, make_strip
from ifcar.pipelines.report.views import CachedViews

NUM_GUESSES = 3
# What the filter says, and how a sentence says it.
OUTCOMES_OF_TWO = {
    "A right, B wrong": "A is right and B wrong",
    "B right, A wrong": "B is right and A wrong",
    "both wrong": "both are wrong",
    "both right": "both are right",
}
OUTCOMES_OF_ONE = {"A right": "A is right", "A wrong": "A is wrong"}
Probabilities = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """A class that a system names for a clip, and its probability."""

    name: str
    probability: float
    right: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What one system says about a clip.

    Args:
        letter: "A" or "B".
        system: its name.
        right: whether the label, or every label, is more probable than every other class.
        guesses: its three most probable classes, more where the clip has more labels.
    """

    letter: str
    system: str
    right: bool
    guesses: Sequence[Guess]


@dataclass(frozen=True, kw_only=True)
class Card:
    """One clip of the gallery.

    Args:
        clip_id: its id.
        label: its class, or classes.
        class_numbers: numbers of its classes, from 0.
        outcome: place in the gallery's outcomes.
        verdicts: A's and B's.
        strip: its picture, or None.
    """

    clip_id: str
    label: str
    class_numbers: Sequence[int]
    outcome: int
    verdicts: Sequence[Verdict]
    strip: Strip | None


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The chosen clips.

    Args:
        cards: by outcome, then in the order of choice.
        outcomes: short name of each outcome, and its clause of a sentence.
        counts: (clips shown, clips of the test split) for each outcome.
        labels: (class number, name) of the classes that are shown.
        without_pictures: why clips have no picture or no frames; empty when all have.
    """

    cards: Sequence[Card]
    outcomes: Mapping[str, str]
    counts: Sequence[tuple[int, int]]
    labels: Sequence[tuple[int, str]]
    without_pictures: str


def choose_clips(outcomes: NDArray[np.int64], targets: NDArray[Any], clip_ids: Sequence[str], num: int) -> list[int]:
    """Return which clips to show: as many of each outcome, spread evenly over its clips ordered by class and id.

    Where an outcome has fewer clips than its share, the others get more, one each in turn.

    Args:
        outcomes: (n,) outcome of each clip, from 0.
        targets: (n,) classes or (n, K) labels.
        clip_ids: n ids.
        num: clips to choose, at most.
    """
    order = sorted(range(len(clip_ids)), key=lambda place: (np.atleast_1d(targets[place]).tolist(), clip_ids[place]))
    members = [[p for p in order if outcomes[p] == outcome] for outcome in range(int(outcomes.max(initial=0)) + 1)]
    shares = [0] * len(members)
    while sum(shares) < min(num, len(clip_ids)):
        for outcome, places in enumerate(members):
            if shares[outcome] < len(places) and sum(shares) < num:
                shares[outcome] += 1
    chosen = []
    for places, share in zip(members, shares, strict=True):
        chosen += [places[(2 * k + 1) * len(places) // (2 * share)] for k in range(share)]
    return chosen


def make_gallery(
    chapter: Chapter,
    probabilities: Sequence[Probabilities],
    views: CachedViews | str,
    num: int,
    progress: Progress,
) -> Gallery:
    """Choose clips and read their pictures.

    Args:
        chapter: gives A, B and the classes.
        probabilities: (n, K) of A, and of B where there is one.
        views: the cached views, or why there are none.
        num: clips to show, at most.
        progress: is told about every picture.
    """
    assert chapter.a is not None and chapter.data is not None
    targets, clip_ids = chapter.a.targets, chapter.a.clip_ids.tolist()
    right = [chapter.a.kind.right(p, targets) for p in probabilities]
    outcomes = _outcomes(right)
    names = OUTCOMES_OF_ONE if len(right) == 1 else OUTCOMES_OF_TWO
    chosen = choose_clips(outcomes, targets, clip_ids, num)
    classes = chapter.data.classes
    labels = chapter.a.labels(len(classes))
    progress.start("drawing clips", len(chosen))
    cards = []
    for place in chosen:
        verdicts = [
            Verdict(
                letter=letter,
                system=system.name,
                right=bool(r[place]),
                guesses=_guesses(p[place], labels[place], classes),
            )
            for (letter, system), p, r in zip(chapter.pair(), probabilities, right, strict=True)
        ]
        cards.append(
            Card(
                clip_id=clip_ids[place],
                label=" · ".join(classes[k] for k in np.flatnonzero(labels[place])) or "no label",
                class_numbers=np.flatnonzero(labels[place]).tolist(),
                outcome=int(outcomes[place]),
                verdicts=verdicts,
                strip=None if isinstance(views, str) else make_strip(views, clip_ids[place]),
            )
        )
        progress.advance(1)
    progress.finish()
    shown = sorted({number for card in cards for number in card.class_numbers})
    return Gallery(
        cards=cards,
        outcomes=names,
        counts=[(int((outcomes[chosen] == k).sum()), int((outcomes == k).sum())) for k in range(len(names))],
        labels=[(number, classes[number]) for number in shown],
        without_pictures=_missing(cards, views),
    )


def _outcomes(right: Sequence[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Return (n,) places in OUTCOMES_OF_ONE or OUTCOMES_OF_TWO."""
    if len(right) == 1:
        return np.where(right[0], 0, 1)
    a, b = right
    return np.select([a & ~b, b & ~a, ~a & ~b], [0, 1, 2], 3)


def _guesses(probabilities: Probabilities, labels: NDArray[np.bool_], classes: Sequence[str]) -> list[Guess]:
    best = np.argsort(-probabilities, kind="stable")[: max(NUM_GUESSES, int(labels.sum()))]
    return [Guess(name=classes[k], probability=float(probabilities[k]), right=bool(labels[k])) for k in best]


def _missing(cards: Sequence[Card], views: CachedViews | str) -> str:
    if isinstance(views, str):
        return f"No pictures: {views}."
    without = sum(card.strip is None or not card.strip.jpeg for card in cards)
    if not without:
        return ""
    reason = f": {views.without_pixels}" if views.without_pixels else ", whose videos are missing or cannot be read"
    which = "all clips" if without == len(cards) else f"{without} of {len(cards)} clips"
    return f"Boxes alone are drawn for {which}{reason}."
