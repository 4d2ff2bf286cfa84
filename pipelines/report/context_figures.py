"""Contexts of test clips in the plane: the streams of systems that learned alone beside those that learned together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from ifcar.pipelines.report.contexts import NUM_NEIGHBOURS, Contexts, Vectors, purity
from ifcar.pipelines.report.drawing import GREY, Drawing, short

MOST_CLIPS = 500
MOST_CLASSES = 12
FEWEST_POINTS = 5  # below which t-SNE has no neighbours to keep
SEED, MOST_PERPLEXITY = 0, 30.0
MARKERS = "o^sDvP*X"
CLASS_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
    "#8c6d1f", "#7b3294", "#a6d854", "#e7298a", "#1b3a4b", "#b2182b",
)  # fmt: skip
MEASURE_COLUMNS = ["system", "measure", "streams", "value", "chance", "n"]


def draw_contexts(
    systems: Sequence[Contexts],
    clip_ids: Sequence[str],
    targets: NDArray[np.int64] | None,
    classes: Sequence[str],
    measures: Sequence[Sequence[object]],
    drawn_of: str,
) -> Drawing:
    """Draw one plane a system: colour is the class, the marker the stream.

    Args:
        systems: what is drawn, all of the same n clips.
        clip_ids: (n,).
        targets: (n,) classes; None where a clip has several labels.
        classes: names.
        measures: rows of `measure_rows`, which the caption repeats.
        drawn_of: how many of how many clips.

    Source: Rai et al. 2021 show such planes; how clips are chosen and what is measured is ours.
    """
    figure = Figure(figsize=(4.6 * len(systems), 5.6), layout="constrained")
    axes = figure.subplots(1, len(systems), squeeze=False)[0]
    colours = _colours(targets, len(clip_ids))
    streams = list(dict.fromkeys(name for system in systems for name in system.vectors))
    rows: list[list[object]] = []
    for axis, system in zip(axes, systems, strict=True):
        points = plane(system.vectors)
        for name, own in points.items():
            marker = MARKERS[streams.index(name) % len(MARKERS)]
            axis.scatter(own[:, 0], own[:, 1], c=colours, marker=marker, s=22, alpha=0.75, linewidths=0)
            said = [""] * len(clip_ids) if targets is None else [classes[k] for k in targets]
            rows += [
                [system.system, name, clip, label, float(x), float(y)]
                for clip, label, (x, y) in zip(clip_ids, said, own, strict=True)
            ]
        axis.set_title(short(system.system, 40, 1))
        axis.set_xticks([])
        axis.set_yticks([])
        for side in axis.spines.values():
            side.set_visible(True)
    handles = [
        Line2D([], [], ls="", marker=MARKERS[k % len(MARKERS)], color="#555555", label=name)
        for k, name in enumerate(streams)
    ]
    handles += [
        Line2D([], [], ls="", marker="o", color=colour, label=label) for colour, label in _legend(targets, classes)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4 if len(systems) > 1 else 2, fontsize=9)
    return Drawing(
        name="contexts",
        title="Contexts of test clips, by stream",
        caption=f"t-SNE (seed {SEED}) of what each stream classifies, at length 1; {drawn_of}, one view each. "
        "Distances between far groups mean nothing; the numbers are of the vectors themselves. "
        f"{measure_words(measures)}",
        alt=f"Points of clips in the plane, one panel a system: {', '.join(s.system for s in systems)}. "
        f"{measure_words(measures)}",
        figure=figure,
        columns=["system", "stream", "clip", "class", "x", "y"],
        rows=rows,
        wide=True,
        alone=True,
    )


def plane(vectors: Mapping[str, Vectors]) -> dict[str, NDArray[np.float64]]:
    """Return (n, 2) places of each stream's contexts, all streams of one width in one t-SNE."""
    together = np.concatenate(list(vectors.values()))
    perplexity = min(MOST_PERPLEXITY, (len(together) - 1) / 3)
    model = TSNE(init="pca", random_state=SEED, perplexity=perplexity)
    places = np.asarray(model.fit_transform(together), np.float64)
    ends = np.cumsum([len(own) for own in vectors.values()])[:-1]
    return dict(zip(vectors, np.split(places, ends), strict=True))


def measure_rows(
    systems: Sequence[Contexts], targets: NDArray[np.int64] | None, units: NDArray[np.int64]
) -> list[list[object]]:
    """Return R@1 of each ordered pair of streams and kNN purity of each stream, beside what chance gives."""
    rows: list[list[object]] = []
    for system in systems:
        count = len(units)
        rows += [[system.system, "R@1", pair, value, 1 / count, count] for pair, value in system.retrievals().items()]
        if targets is not None:
            for name, own in system.vectors.items():
                found, chance = purity(own, targets, units)
                if np.isfinite(found):
                    rows.append([system.system, "kNN purity", name, found, chance, count])
    return rows


def measure_words(rows: Sequence[Sequence[object]]) -> str:
    """Return the measures as sentences: the mean over pairs of streams, or over streams, of each system."""
    said = []
    for measure, meaning in (
        ("R@1", "retrieval R@1 between streams"),
        ("kNN purity", f"purity of the {NUM_NEIGHBOURS} nearest of other recordings"),
    ):
        own = [row for row in rows if row[1] == measure]
        by_system: dict[str, list[float]] = {}
        for row in own:
            by_system.setdefault(str(row[0]), []).append(float(str(row[3])))
        if by_system:
            chance = 100 * float(np.mean([float(str(row[4])) for row in own]))
            parts = ", ".join(f"{name} {100 * float(np.mean(values)):.1f} %" for name, values in by_system.items())
            said.append(f"{meaning[0].upper()}{meaning[1:]}: {parts} (chance {chance:.1f} %).")
    return " ".join(said)


def _common(targets: NDArray[np.int64]) -> list[int]:
    """Return the classes of most clips, at most as many as there are colours."""
    found, counts = np.unique(targets, return_counts=True)
    return [int(k) for k in found[np.argsort(-counts, kind="stable")][:MOST_CLASSES]]


def _colours(targets: NDArray[np.int64] | None, count: int) -> list[str]:
    if targets is None:
        return [GREY] * count
    colour = dict(zip(_common(targets), CLASS_COLOURS, strict=False))
    return [colour.get(int(k), GREY) for k in targets]


def _legend(targets: NDArray[np.int64] | None, classes: Sequence[str]) -> list[tuple[str, str]]:
    if targets is None:
        return []
    common = _common(targets)
    named = [(colour, short(classes[k], 24, 1)) for k, colour in zip(common, CLASS_COLOURS, strict=False)]
    return named + ([(GREY, "other classes")] if len(np.unique(targets)) > len(common) else [])
