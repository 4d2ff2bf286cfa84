"""Lines of a table that are, seed by seed, the best of another system's runs."""

from __future__ import annotations

from collections.abc import Sequence

from ifcar.errors import InputError
from ifcar.pipelines.comparison.results import Replicate, System
from ifcar.pipelines.grid.lines import ChoiceConfig
from ifcar.pipelines.grid.variants import Variant
from ifcar.pipelines.runs.config import RunConfig


def check_choices(choices: Sequence[ChoiceConfig], runs: Sequence[tuple[str, RunConfig]]) -> None:
    """Refuse, before a run is made, a choice on a held-out part that the runs' schedules do not hold out.

    Args:
        choices: of a grid.
        runs: its runs, each with the name of its system in the file.
    """
    for choice in (choice for choice in choices if choice.by == "held_out"):
        for template, run in runs:
            if template == choice.of and (run.schedule.kind != "stretched" or not run.schedule.held_out):
                raise InputError(
                    f"choice {choice.name!r}: its runs hold nothing out that could choose; expected kind: stretched "
                    "and held_out above 0 in their schedule"
                )


def chosen(choice: ChoiceConfig, variants: Sequence[Variant], systems: Sequence[System]) -> list[System]:
    """Return one system a stage: of each seed and draw, the runs of the variant that scored best.

    Args:
        choice: of which system, on which part.
        variants: lines of the grid.
        systems: those of the lines that have finished runs.

    Raises:
        InputError: a run was trained without a held-out part, which was to choose.
    """
    lines = {v.name for v in variants if v.template == choice.of}
    found = []
    for protocol in dict.fromkeys(system.protocol for system in systems):
        candidates = [r for s in systems if s.name in lines and s.protocol == protocol for r in s.replicates]
        places = dict.fromkeys((r.seed, r.draw) for r in candidates)
        best = [
            max((r for r in candidates if (r.seed, r.draw) == place), key=lambda own: _scores(own, choice))
            for place in places
        ]
        if best:
            found.append(System(name=choice.name, protocol=protocol, replicates=best))
    return found


def note_of(choice: ChoiceConfig, variants: Sequence[Variant]) -> str:
    """Return what a table says of the line."""
    count = sum(v.template == choice.of for v in variants)
    if choice.by == "test":
        return f"{choice.name}: the best of {count} on the test clips themselves, which flatters"
    return f"{choice.name}: of each seed the best of {count} on the held-out part of the training clips"


def _scores(replicate: Replicate, choice: ChoiceConfig) -> tuple[float, float]:
    """Return the ranks of a replicate's runs on the part that chooses, added up."""
    ranks = []
    for run in replicate.runs:
        metrics = run.metric(choice.by)
        if metrics is None:
            raise InputError(
                f"choice {choice.name!r}: {run.path.name} was trained without a held-out part, as by a published "
                "schedule; train with kind: stretched"
            )
        ranks.append(metrics.rank)
    return sum(rank[0] for rank in ranks), sum(rank[1] for rank in ranks)
