"""What decides a run's numbers, and the id and the name that follow from it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from ifcar.config_fields import Bounds, Option, check_fields
from ifcar.errors import InputError
from ifcar.pipelines.configs import from_plain, to_plain
from ifcar.pipelines.runs.distil import DistilConfig
from ifcar.pipelines.runs.live import LiveConfig
from ifcar.pipelines.runs.schedule import WEIGHT_DECAY, ScheduleConfig
from ifcar.pipelines.scoring.pooling import Pool

ENSEMBLE = "ensemble"
LATER_OPTIONS = (("layout", "motion", False), ("layout", "attention_scale", 1.0), ("layout", "embedding_scale", 1.0))
"""Options of heads that earlier runs do not know, and what these did: where that is meant, a run's id stays."""
LATER_IN_SCHEDULES = ("coupled_decay", "patience", "least_lr")
"""The same of published schedules."""
ID_LENGTH = 12  # hexadecimal digits of a run's id that its folder's name shows


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuneConfig:
    """Start from another run's weights: all of them, with a new classifier where the classes differ, or named parts.

    Args:
        base: folder of the finished run to start from.
        parts: of the head, by the beginning of its weights' names: "object" is all of `object.…`. These are taken and
            the rest starts from the seed, so that the two runs' options may differ. Empty: everything.
        train: "classifier": only the last linear layer moves, all else is frozen, running statistics too (as in the
            released code of Materzynska et al. 2020, whose few-shot settings Yan et al. 2020 §4.2 follow); "all":
            everything moves.
        base_id: the base run's id; filled in by the run.
    """

    base: Annotated[Path, Option("A finished run whose weights this one starts from.", "--start")]
    parts: Annotated[
        tuple[str, ...],
        Option(
            "Take only this part of them, as object; may be repeated; the rest starts from the seed.",
            "--part",
            repeated=True,
        ),
    ] = ()
    train: Literal["classifier", "all"] = "classifier"
    base_id: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        for part in self.parts:
            if not re.fullmatch(r"\w+(\.\w+)*", part) or self.parts.count(part) > 1:
                raise InputError(f"parts: {part!r:.80} is no part of a head, or named twice; expected names as object")
        if self.parts and self.train == "classifier":
            raise InputError("parts: what is not taken from the other run has to train; give train: all")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that decides a run's numbers; config.yaml holds it, and `fit-head --config` takes it.

    Args:
        head: registered name.
        cache: path of the cache.
        protocol: name of the protocol.
        labels: name of the label space that is learned; None: the protocol's first.
        preset: the head's preset that `options` started from.
        options: the head's config, as plain values.
        aux_weights: weight of each auxiliary loss.
        schedule: the training schedule.
        seed: of initial weights, batch order, views and dropout.
        views: how many plain views of each clip training and tests see, spread over it; None: all that the cache has.
        augmented_views: how many augmented views of a training clip training draws from as well, the first ones; None:
            all that the cache has.
        fine_tune: the run to start from, or None to start from the seed.
        distil_from: the runs whose answers are learned beside the labels, or None.
        live: how the backbone was trained with the head (`ifcar finetune`); None for a run from a cache. `cache` and
            `fingerprint` are then those of the cache that the trained backbone makes.
        fingerprint: of the cache; filled in by the run.
        protocol_digest: SHA-256 over the protocol's table and which rows are extracted; filled in by the run.
    """

    head: str
    cache: Path
    protocol: Annotated[str, Option("Whose splits and labels.")]
    labels: Annotated[
        str | None,
        Option("Label space of the protocol, of those in `ifcar cache info`.", default="the first"),
    ] = None
    preset: Annotated[str, Option("paper, small, tuned, or another of `ifcar list heads`.")] = "paper"
    options: Mapping[str, Any] = field(default_factory=dict)
    aux_weights: Mapping[str, float] = field(default_factory=dict)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    seed: Annotated[int, Option("Of new weights, order, views and dropout."), Bounds(least=0, most=(1 << 32) - 1)] = 0
    views: Annotated[int | None, Bounds(least=1)] = None
    augmented_views: Annotated[int | None, Bounds(least=0)] = None
    fine_tune: FineTuneConfig | None = None
    distil_from: DistilConfig | None = None
    live: LiveConfig | None = None
    fingerprint: str = ""
    protocol_digest: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        for name, weight in self.aux_weights.items():
            if not 0 <= weight < math.inf:
                raise InputError(f"weight of the auxiliary loss {name!r} is {weight}; expected a number of at least 0")

    @property
    def pool(self) -> Pool:
        """How the scores of a tested clip's views become one."""
        return "mean" if self.live is None else self.live.pool

    @property
    def sources(self) -> tuple[Path, ...]:
        """Folders of the runs that this one starts or learns from."""
        started = () if self.fine_tune is None else (self.fine_tune.base,)
        return started if self.distil_from is None else (*started, *self.distil_from.runs)


@dataclass(frozen=True, kw_only=True, slots=True)
class EnsembleConfig:
    """What an ensemble is made of.

    Args:
        members: run folders.
        weights: of the members' probabilities, summing to 1.
        chosen_on: "equal", "given" or "held_out".
        cache: the members' cache.
        protocol: the members' protocol.
        labels: their label space, see `RunConfig`.
        fingerprint: of the cache.
        head: always "ensemble", so that a listing tells it from a head.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]
    chosen_on: str
    cache: Path
    protocol: str
    fingerprint: str
    labels: str | None = None
    head: str = ENSEMBLE

    def __post_init__(self) -> None:
        check_fields(self)


def task_name(config: RunConfig | EnsembleConfig) -> str:
    """Return what a run learned, as tables call it: the protocol, and the label space where that has a name."""
    return config.protocol if config.labels is None else f"{config.protocol} {config.labels}"


def run_id(config: RunConfig) -> str:
    """Return the SHA-256 of everything that decides the run's numbers; where files lie does not enter it.

    The config must be resolved, with fingerprint and protocol digest: the id of a run on other data is another id.
    """
    assert config.fingerprint and config.protocol_digest
    assert config.fine_tune is None or config.fine_tune.base_id
    assert config.distil_from is None or config.distil_from.run_ids
    text = json.dumps(without_places(config), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def without_places(config: RunConfig) -> dict[str, Any]:
    """Return what decides a run's numbers as plain values: all of its config but where files lie."""
    content: dict[str, Any] = to_plain(config)
    del content["cache"]
    for key in ("labels", "views", "augmented_views"):
        if content[key] is None:
            del content[key]
    schedule = content["schedule"]
    if schedule["published"] is None:  # as before schedules belonged to heads: these runs' ids stay what they are
        del schedule["published"]
        if schedule["weight_decay"] is None:
            schedule["weight_decay"] = WEIGHT_DECAY
    else:
        for key in LATER_IN_SCHEDULES:
            if not schedule["published"][key]:
                del schedule["published"][key]
    # Options once said too which auxiliary losses are on; with them the ids of earlier runs stay what they are.
    content["options"] |= {name: name in config.aux_weights for name in _auxiliary(config.head)}
    for section, name, before in LATER_OPTIONS:
        if (own := content["options"].get(section, {})).get(name) == before:
            del own[name]
    if content["fine_tune"] is not None:
        for key in ("base", *(() if content["fine_tune"]["parts"] else ("parts",))):
            del content["fine_tune"][key]
    if content["distil_from"] is None:
        del content["distil_from"]
    else:
        del content["distil_from"]["runs"]
    if content["live"] is None:
        del content["live"]
    else:
        for name, default in (("pool", "mean"), ("boxes_identity", "")):
            if content["live"][name] == default:
                del content["live"][name]
        data = content["live"]["data"]
        # What an earlier run's config does not know is left out where it says nothing: the run's id stays what it is.
        later = ("backbone_options", "background", "sampling", "sampling_fps", "sampling_rates", "subjects", "cameras")
        silent = [name for name in later if not data[name]]
        for name in ("data_root", "weights", "boxes", *silent):
            del data[name]
        del content["live"]["base"]
    return content


def without_seed(config: RunConfig) -> dict[str, Any]:
    """Return `without_places` less the seed: the same for all runs of one system, also where these start from runs."""
    if config.fine_tune is not None:
        config = replace(config, fine_tune=replace(config.fine_tune, base_id=""))
    if config.distil_from is not None:
        config = replace(config, distil_from=replace(config.distil_from, run_ids=()))
    return {**without_places(config), "seed": 0}


def without_loss_switches(head: str, options: Mapping[str, Any], weights: Collection[str]) -> dict[str, Any]:
    """Return a head's options without those that only repeat which auxiliary losses have a weight, as in earlier runs.

    Raises:
        InputError: one of them contradicts the weights.
    """
    names = [name for name in _auxiliary(head) if isinstance(options.get(name), bool)]
    for name in names:
        if options[name] != (name in weights):
            raise InputError(
                f"head {head!r}: option {name} is {options[name]}, but its loss has "
                f"{'a' if name in weights else 'no'} weight; the weight alone builds it: give --aux-weight (in files "
                f"aux_weight, in a run's aux_weights) and leave {name} out"
            )
    return {key: value for key, value in options.items() if key not in names}


def _auxiliary(head: str) -> Collection[str]:
    from ifcar.heads.catalog import HEADS  # torch: commands read these configs' options before they need it

    return HEADS.get(head).auxiliary if head in HEADS.names() else ()


def check_resumable(path: Path, stopped: object, config: RunConfig, *, unknown: Collection[str] = ()) -> None:
    """Raise InputError when a stopped run's config is not the one to go on with; files may lie elsewhere now.

    Args:
        path: the run's folder.
        stopped: its config.
        config: the one to go on with.
        unknown: keys that a stopped run may not know yet.
    """
    before = without_places(stopped) if isinstance(stopped, RunConfig) else {}
    now = without_places(config)
    differing = [key for key in {**before, **now} if key not in unknown and before.get(key) != now.get(key)]
    if differing:
        raise InputError(f"{path}: the stopped run has another {', '.join(differing)}; --resume needs the same")


def head_label(config: RunConfig) -> str:
    """Return what the head says of its options in names; nothing of a head or an option that is not known here."""
    from ifcar.heads.catalog import HEADS

    try:
        kind = HEADS.get(config.head)
        return kind.label(from_plain(kind.config_type, config.options, f"head {config.head}"))
    except InputError:
        return ""


def run_name(config: RunConfig) -> str:
    """Return a short readable name: head, its label, auxiliary weight, preset, protocol, label space, seed."""
    aux = "-".join(f"{name}{weight:g}" for name, weight in config.aux_weights.items())
    preset = "" if config.preset == "paper" else config.preset
    tuned = "" if config.fine_tune is None else f"tuned-{config.fine_tune.train}"
    if config.fine_tune is not None and config.fine_tune.parts:
        tuned = "from-" + "-".join(config.fine_tune.parts)
    live = "" if config.live is None else "joint" if config.live.base is not None else "finetune"
    seen = {"views": config.views, "augmented": config.augmented_views}
    views = "-".join(f"{name}{count}" for name, count in seen.items() if count is not None)
    parts = (
        live,
        config.head,
        head_label(config),
        aux,
        preset,
        config.protocol,
        config.labels or "",
        views,
        tuned,
        "" if config.distil_from is None else "taught",
        f"seed{config.seed}",
    )
    return "-".join(part for part in parts if part)
