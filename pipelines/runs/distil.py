"""Static distillation: a run that learns the answers of finished runs beside the labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ifcar.config_fields import Bounds, Option, check_fields
from ifcar.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class DistilConfig:
    """Lower (1 − w) L + w τ² · the mean over teachers of CE(student / τ, softmax(teacher / τ)) in place of L.

    L is the class loss of the run's own label space; a teacher's answers are those that its folder holds of the
    training clips, found by their names. Source: Rai et al. 2021, Table 2 ("static"); w and τ are the released code's.

    Args:
        runs: folders of the teachers, finished runs of the same classes.
        weight: w.
        temperature: τ.
        run_ids: the teachers' ids; filled in by the run.
    """

    runs: Annotated[
        tuple[Path, ...],
        Option(
            "A finished run whose answers on the training clips are learned beside the labels; may be repeated.",
            "--distil-from",
            repeated=True,
        ),
    ]
    weight: Annotated[
        float,
        Option("Weight of the teachers' answers; labels count the rest.", "--distil-weight"),
        Bounds(above=0, below=1),
    ] = 0.1
    temperature: Annotated[
        float, Option("What both sides' logits are divided by.", "--distil-temperature"), Bounds(above=0)
    ] = 2.5
    run_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.runs:
            raise InputError("runs: there are none; name at least one teacher")
        if len(set(self.runs)) < len(self.runs):
            raise InputError(f"runs are {', '.join(map(str, self.runs))}; expected each once")
