"""`ifcar few-shot`: base classes first, then a few clips of novel classes; a grid of one system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ifcar.heads.catalog import HEADS
from ifcar.pipelines.grid.config import FewShotConfig, GridConfig
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.runs.schedule import ScheduleConfig


def few_shot_grid(
    system: SystemConfig,
    few_shot: FewShotConfig,
    *,
    schedule: ScheduleConfig | None = None,
    seeds: Sequence[int] = (0,),
    labels: str | None = None,
) -> GridConfig:
    """Return the grid that trains a system on the base classes and fine-tunes it on every draw of k shots.

    Yan et al. 2020, §4.2, Table 3, after the settings of Materzynska et al. 2020: 88 base and 86 novel classes, 5 or 10
    clips of each novel class.

    Args:
        system: what is trained; it is named after what it states.
        few_shot: k and what fine-tuning moves; the cache needs the protocols fewshot-base and fewshot-K.
        schedule: of the base training.
        seeds: one base run each.
        labels: the label space of the protocols; None takes their first.

    Raises:
        InputError: no such head.
    """
    HEADS.get(str(system.head))  # before a cache is asked for, so that a slip of the pen is what is said
    each = {"aux": system.aux_weight, **system.aux_weights}
    aux = "-".join(f"{name}{weight:g}" for name, weight in each.items() if weight)
    preset = system.preset or "paper"
    parts = [system.head, labels, system.streams, aux, "" if preset == "paper" else preset]
    label = "-".join(part for part in parts if part)
    return GridConfig(
        name=f"few-shot-{label}",
        title=f"Few-shot: {label}",
        seeds=tuple(seeds),
        labels=labels,
        preset=preset,
        schedule=schedule or ScheduleConfig(),
        few_shot=few_shot,
        systems=(replace(system, name=label),),
    )
