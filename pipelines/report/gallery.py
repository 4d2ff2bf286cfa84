"""The gallery: which clips it shows, and what A and B say about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.pipelines.progress import Progress
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.records import PictureFolder, Told, records_of
from ifcar.pipelines.report.strips import Strip, make_strip
from ifcar.pipelines.report.trained import spread
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
    """A class that a system names for a clip, its number and its probability."""

    number: int
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
        verdicts: A's and B's.
        strip: its picture, or None.
    """

    clip_id: str
    label: str
    verdicts: Sequence[Verdict]
    strip: Strip | None


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The test clips: some in the page itself, all in its records.

    Args:
        cards: of the chosen clips, by outcome, then in the order of choice.
        records: of all test clips, the chosen first, what `clips.js` makes cards of.
        outcomes: short name of each outcome, and its clause of a sentence.
        counts: (clips shown, clips of the test split) for each outcome.
        labels: (class number, name) of the classes that test clips have.
        instances: numbers of instances that test clips have; empty where they are not known.
        without_pictures: why clips have no picture or no frames; empty when all have.
    """

    cards: Sequence[Card]
    records: Mapping[str, object]
    outcomes: Mapping[str, str]
    counts: Sequence[tuple[int, int]]
    labels: Sequence[tuple[int, str]]
    instances: Sequence[int]
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
    order = _in_order(targets, clip_ids)
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


def _in_order(targets: NDArray[Any], clip_ids: Sequence[str]) -> list[int]:
    """Return places in the order of class and id."""
    return sorted(range(len(clip_ids)), key=lambda place: (np.atleast_1d(targets[place]).tolist(), clip_ids[place]))


def make_gallery(
    chapter: Chapter,
    probabilities: Sequence[Probabilities],
    views: CachedViews | str,
    num: int,
    beside: PictureFolder,
    progress: Progress,
) -> Gallery:
    """Choose the clips of the page itself, write pictures of others beside it, and tell of all.

    Args:
        chapter: gives A, B and the classes.
        probabilities: (n, K) of A, and of B where there is one.
        views: the cached views, or why there are none.
        num: clips in the page itself, at most.
        beside: where pictures of others go.
        progress: is told about every picture.
    """
    assert chapter.a is not None and chapter.data is not None
    targets, clip_ids, classes = chapter.a.targets, chapter.a.clip_ids.tolist(), chapter.data.classes
    labels = chapter.a.labels(len(classes))
    right = [chapter.a.kind.right(p, targets) for p in probabilities]
    outcomes = _outcomes(right)
    names = OUTCOMES_OF_ONE if len(right) == 1 else OUTCOMES_OF_TWO
    guesses = [[_guesses(p[n], labels[n], classes) for n in range(len(clip_ids))] for p in probabilities]
    chosen = choose_clips(outcomes, targets, clip_ids, num)
    others = [place for place in _in_order(targets, clip_ids) if place not in set(chosen)]
    progress.start("drawing clips", len(chosen) + min(beside.most, len(others)))
    cards = []
    for place in chosen:
        verdicts = [
            Verdict(letter=letter, system=system.name, right=bool(r[place]), guesses=own[place])
            for (letter, system), own, r in zip(chapter.pair(), guesses, right, strict=True)
        ]
        cards.append(
            Card(
                clip_id=clip_ids[place],
                label=" · ".join(classes[k] for k in np.flatnonzero(labels[place])) or "no label",
                verdicts=verdicts,
                strip=None if isinstance(views, str) else make_strip(views, clip_ids[place]),
            )
        )
        progress.advance(1)
    pictured = _pictured(views, clip_ids, spread(others, beside.most), beside, progress)
    progress.finish()
    instances = [-1] * len(clip_ids) if isinstance(views, str) else views.num_instances(clip_ids).tolist()
    told = [
        Told(
            clip_id=clip_ids[n],
            classes=np.flatnonzero(labels[n]).tolist(),
            outcome=int(outcomes[n]),
            instances=instances[n],
            verdicts=[
                (bool(r[n]), [(guess.number, guess.probability) for guess in own[n]])
                for r, own in zip(right, guesses, strict=True)
            ],
        )
        for n in [*chosen, *others]
    ]
    return Gallery(
        cards=cards,
        records=records_of(told, classes, views, [card.clip_id for card in cards], pictured),
        outcomes=names,
        counts=[(int((outcomes[chosen] == k).sum()), int((outcomes == k).sum())) for k in range(len(names))],
        labels=[(int(k), classes[k]) for k in np.flatnonzero(labels.any(axis=0))],
        instances=sorted({number for number in instances if number >= 0}),
        without_pictures=_missing(cards, views),
    )


def _pictured(
    views: CachedViews | str, clip_ids: Sequence[str], places: Sequence[int], beside: PictureFolder, progress: Progress
) -> dict[str, Strip]:
    """Write the pictures of these clips beside the page; return the strips of those that have one, by id."""
    found = {}
    for place in places if not isinstance(views, str) and views.sources else ():
        assert not isinstance(views, str)
        strip = make_strip(views, clip_ids[place])
        if strip is not None and strip.jpeg:
            found[clip_ids[place]] = beside.save(strip, place)
        progress.advance(1)
    return found


def _outcomes(right: Sequence[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Return (n,) places in OUTCOMES_OF_ONE or OUTCOMES_OF_TWO."""
    if len(right) == 1:
        return np.where(right[0], 0, 1)
    a, b = right
    return np.select([a & ~b, b & ~a, ~a & ~b], [0, 1, 2], 3)


def _guesses(probabilities: Probabilities, labels: NDArray[np.bool_], classes: Sequence[str]) -> list[Guess]:
    best = np.argsort(-probabilities, kind="stable")[: max(NUM_GUESSES, int(labels.sum()))]
    return [
        Guess(number=int(k), name=classes[k], probability=float(probabilities[k]), right=bool(labels[k])) for k in best
    ]


def _missing(cards: Sequence[Card], views: CachedViews | str) -> str:
    if isinstance(views, str):
        return f"No pictures: {views}."
    without = sum(card.strip is None or not card.strip.jpeg for card in cards)
    if not without:
        return ""
    reason = f": {views.without_pixels}" if views.without_pixels else ", whose videos are missing or cannot be read"
    which = "all clips" if without == len(cards) else f"{without} of {len(cards)} clips"
    return f"Boxes alone are drawn for {which}{reason}."
