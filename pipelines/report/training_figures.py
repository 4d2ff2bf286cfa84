"""Training curves: loss and held-out accuracy over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.drawing import COLOURS, GREY, Drawing, new_figure, short
from ifcar.pipelines.report.systems import SystemScores
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.runs.history import History, read_history

CURVES = {
    "training-loss": ("classification_loss", "Training loss", "cross entropy, training (nats)", 1.0),
    "training-accuracy": ("held_out_top1", "Held-out accuracy during training", "top-1, held-out part (%)", 100.0),
    "training-map": ("held_out_map", "Held-out mAP during training", "mAP, held-out part (%)", 100.0),
}


def draw_training(chapter: Chapter) -> list[Drawing]:
    """Draw the loss and, where a part was held out, its accuracy; A and B in colour, other systems in grey."""
    histories = {s.name: [(run, read_history(run.path)) for run in s.runs()] for s in chapter.systems}
    histories = {name: runs for name, runs in histories.items() if any(history for _, history in runs)}
    drawings = []
    for name, (key, title, label, scale) in CURVES.items():
        if any(key in record for runs in histories.values() for _, history in runs for record in history):
            drawings.append(_draw(chapter, histories, name=name, key=key, title=title, label=label, scale=scale))
    return drawings


def _draw(
    chapter: Chapter,
    histories: Mapping[str, Sequence[tuple[Run, History]]],
    *,
    name: str,
    key: str,
    title: str,
    label: str,
    scale: float,
) -> Drawing:
    figure, axes = new_figure(3.7)
    letters = {system.name: letter for letter, system in chapter.pair()}
    ends, others = [], 0
    for system in sorted(histories, key=lambda s: letters.get(s, ""), reverse=False):
        steps, values = mean_curve([history for _, history in histories[system]], key)
        if not len(steps):
            continue
        mean = scale * values.mean(axis=0)
        letter = letters.get(system)
        if letter is None:
            axes.plot(steps, mean, color=GREY, lw=1, alpha=0.8, label=None if others else "other systems", zorder=1)
            others += 1
            continue
        spread = scale * values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros_like(mean)
        style = "-" if letter == "A" else (0, (5, 1.5))
        axes.fill_between(steps, mean - spread, mean + spread, color=COLOURS[letter], alpha=0.18, lw=0, zorder=2)
        axes.plot(steps, mean, color=COLOURS[letter], ls=style, label=short(f"{letter}: {system}", 34, 1), zorder=3)
        ends.append(f"{letter} ({system}) ends at {mean[-1]:.3g} after {steps[-1]} steps")
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel(label)
    axes.grid(visible=True)
    if ends or others:
        axes.legend(loc="best")
    return Drawing(
        name=name,
        title=title,
        caption=_caption(chapter.pair(), histories, key, others),
        alt=f"Line chart of {label} over optimiser steps. {'; '.join(ends) or 'Neither A nor B was trained'}.",
        figure=figure,
        columns=["system", "run", "phase", "epoch", "step", "seed", key],
        rows=[
            [system, run.path.name, r["phase"], r.get("epoch"), r["step"], run.metrics[0].seed, r[key]]
            for system, runs in histories.items()
            for run, history in runs
            for r in history
            if key in r
        ],
    )


def _caption(
    pair: Sequence[tuple[str, SystemScores]],
    histories: Mapping[str, Sequence[tuple[Run, History]]],
    key: str,
    others: int,
) -> str:
    text = (
        "Mean over seeds; band: ± one sample standard deviation over seeds. "
        if any(len(runs) > 1 for runs in histories.values())
        else "One run. "
    )
    if key.startswith("held_out_"):
        text += "The held-out part is taken from the training split; no test clip is in it. "
    if any(r["phase"] != "fit" for runs in histories.values() for _, history in runs for r in history):
        text += "Drawn: the phase that fits without the held-out part; the refit on all clips is in the numbers. "
    untrained = [f"{letter} ({system.name})" for letter, system in pair if system.name not in histories]
    if untrained:
        text += f"Not drawn: {' and '.join(untrained)}, an ensemble, which is not trained. "
    if others:
        text += f"Grey: the means of {others} other systems of the table."
    return text.strip()


def mean_curve(
    histories: Sequence[History], key: str
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Return the steps that every history has in its fit phase, and (runs, steps) values there."""
    curves = [{r["step"]: float(r[key]) for r in h if r["phase"] == "fit" and key in r} for h in histories]
    curves = [curve for curve in curves if curve]
    common = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return np.array(common, np.int64), np.array([[curve[s] for s in common] for curve in curves], np.float64)
