"""`ifcar few-shot`: base classes first, then a few clips of novel classes; a grid of one system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ifcar.pipelines.grid.config import FewShotConfig, GridConfig, SystemConfig
from ifcar.pipelines.runs.schedule import ScheduleConfig


def few_shot_grid(
    head: str,
    *,
    shots: Sequence[int] = (5, 10),
    train: Literal["classifier", "all"] = "classifier",
    preset: str = "paper",
    streams: str | None = None,
    aux_weight: float = 0.0,
    aux_weights: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    schedule: ScheduleConfig | None = None,
    tune_schedule: ScheduleConfig | None = None,
    seeds: Sequence[int] = (0,),
    labels: str | None = None,
) -> GridConfig:
    """Return the grid that trains a head on the base classes and fine-tunes it on every draw of k shots.

    Yan et al. 2020, §4.2, Table 3, after the settings of Materzynska et al. 2020: 88 base and 86 novel classes, 5 or 10
    clips of each novel class.

    Args:
        head: registered name.
        shots: k; the cache needs the protocols fewshot-base and fewshot-K.
        train: what fine-tuning moves: the classifier alone (released code) or everything.
        preset: the head's preset.
        streams: "appearance", "layout" or "both".
        aux_weight: λ of the head's only auxiliary loss.
        aux_weights: λ of each of several auxiliary losses.
        settings: head options by dotted name.
        schedule: of the base training.
        tune_schedule: of the fine-tuning; None follows the base run's.
        seeds: one base run each.
        labels: the label space of the protocols; None takes their first.
    """
    each = {"aux": aux_weight, **(aux_weights or {})}
    aux = "-".join(f"{name}{weight:g}" for name, weight in each.items() if weight)
    parts = [head, labels or "", streams or "", aux, "" if preset == "paper" else preset]
    label = "-".join(part for part in parts if part)
    return GridConfig(
        name=f"few-shot-{label}",
        title=f"Few-shot: {label}",
        seeds=tuple(seeds),
        labels=labels,
        preset=preset,
        schedule=schedule or ScheduleConfig(),
        few_shot=FewShotConfig(shots=tuple(shots), train=train, schedule=tune_schedule),
        systems=(
            SystemConfig(
                name=label,
                head=head,
                streams=streams,
                aux_weight=aux_weight,
                aux_weights=aux_weights or {},
                settings=settings or {},
            ),
        ),
    )
