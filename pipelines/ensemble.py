"""`ifcar ensemble`: late fusion of runs, the weighted average of their class probabilities (Yan et al. 2020, §4.2)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ifcar.errors import InputError
from ifcar.heads.catalog import HEADS
from ifcar.pipelines.runs.config import ENSEMBLE, EnsembleConfig, RunConfig
from ifcar.pipelines.runs.data import write_run_data
from ifcar.pipelines.runs.finished import (
    Run,
    finished_runs,
    fresh_folder,
    is_finished,
    open_run,
    write_config,
    write_results,
)
from ifcar.pipelines.scoring.scores import Metrics, Predictions, measure

WEIGHT_STEPS = 20  # candidate weights are multiples of 1/20


@dataclass(frozen=True, kw_only=True, slots=True)
class EnsembleResult:
    """A fused run beside its members."""

    run: Run
    members: Sequence[Run]
    weights: Sequence[float]


def ensemble(
    runs: Sequence[Path],
    *,
    weights: Sequence[float] | Literal["held_out"] | None = None,
    out: Path | None = None,
) -> EnsembleResult:
    """Fuse runs of the same cache and protocol.

    Args:
        runs: run folders; none takes the newest finished i3d run and the newest finished relational run that share
            a cache and a protocol. The choice looks at ages only, never at scores.
        weights: None for equal ones, one number a run, or "held_out": the weights that score highest on the part
            held out of the training split, which no member's stored predictions there were trained on.
        out: folder of the ensemble's run; default: a fresh one.

    Raises:
        InputError: the runs do not go together, or no weights can be chosen.
    """
    return fuse_runs([open_run(path) for path in runs] if runs else newest_pair(), weights=weights, out=out)


def fuse_runs(
    members: Sequence[Run],
    *,
    weights: Sequence[float] | Literal["held_out"] | None = None,
    out: Path | None = None,
) -> EnsembleResult:
    """Fuse opened runs, as `ensemble` does those of folders."""
    started = time.perf_counter()
    first = _check_members(members)
    chosen_on = "held_out" if weights == "held_out" else "equal" if weights is None else "given"
    if weights == "held_out":
        numbers = choose_weights(members)
    else:
        numbers = _normalised(members, [1.0] * len(members) if weights is None else weights)
    splits = [m.split for m in members[0].metrics if all(o.metric(m.split) is not None for o in members)]
    predictions = [fuse(members, split, numbers) for split in splits]
    metrics: list[Metrics] = [measure(p, seed=first.seed, started=started) for p in predictions]
    path = out or fresh_folder(f"{ENSEMBLE}-" + "+".join(m.path.name for m in members))
    if is_finished(path):
        raise InputError(f"{path}: holds a finished run; name another --out")
    path.mkdir(parents=True, exist_ok=True)
    config = EnsembleConfig(
        members=tuple(str(m.path) for m in members),
        weights=tuple(numbers),
        chosen_on=chosen_on,
        cache=first.cache,
        protocol=first.protocol,
        labels=first.labels,
        fingerprint=first.fingerprint,
    )
    write_config(path, config)
    data = [member.data() for member in members]
    notes = [*(note for own in data for note in own.notes), *fusion_notes(members, numbers, metrics)]
    write_run_data(path, replace(data[0], notes=tuple(dict.fromkeys(notes))))
    write_results(path, predictions, metrics)
    return EnsembleResult(run=open_run(path), members=members, weights=numbers)


def fusion_notes(members: Sequence[Run], weights: Sequence[float], fused: Sequence[Metrics]) -> list[str]:
    """Return a line on every member of weight 0, and one where a member alone is better on the test clips."""
    notes = [
        f"{member.path.name} has weight 0: the ensemble is the same without it"
        for member, weight in zip(members, weights, strict=True)
        if weight == 0
    ]
    own = [test for member in members if (test := member.metric("test")) is not None]
    whole = next((metrics for metrics in fused if metrics.split == "test"), None)
    if whole is None or whole.primary is None or len(own) < len(members) or any(t.primary is None for t in own):
        return notes
    scores = [float(test.primary or 0.0) for test in own]
    best = int(np.argmax(scores))
    if scores[best] > whole.primary:
        notes.append(
            f"worse than its best member: {100 * whole.primary:.1f} against {100 * scores[best]:.1f} of "
            f"{members[best].path.name} alone, on {whole.n} test clips"
        )
    return notes


def newest_pair() -> list[Run]:
    """Return the newest finished i3d run and the newest finished relational run of the same cache and protocol.

    Raises:
        InputError: there is no such pair; says which command makes one.
    """
    for relational in reversed(finished_runs()):
        config = relational.config
        known = isinstance(config, RunConfig) and config.head in HEADS.names()
        if known and HEADS.get(config.head).relational:
            frame = partner(relational)
            if frame is not None:
                return [frame, relational]
    raise InputError(
        "no finished i3d run and relational run of the same cache and protocol; train them with "
        "`ifcar fit-head i3d` and `ifcar fit-head sfi --aux-weight 5`, or name the runs"
    )


def partner(run: Run) -> Run | None:
    """Return the newest finished run that late fusion adds to this one, of the same cache and protocol, if any.

    That is a frame-level run, as of i3d, for a relational run, and the other way round.
    """
    if not isinstance(run.config, RunConfig):
        return None
    relational, frame_level = (getattr(HEADS.get(run.config.head), what) for what in ("relational", "frame_level"))
    for other in reversed(finished_runs()):
        if not isinstance(other.config, RunConfig) or other.config.head not in HEADS.names():
            continue  # a head that is not here, of a plugin's run
        head = HEADS.get(other.config.head)
        goes_with = (relational and head.frame_level) or (frame_level and head.relational)
        shared = ("fingerprint", "protocol", "labels")
        if goes_with and all(getattr(other.config, name) == getattr(run.config, name) for name in shared):
            return other
    return None


def fuse(members: Sequence[Run], split: str, weights: Sequence[float]) -> Predictions:
    """Return the logits of Σ_m w_m p_m over the clips of a part, which must be the same in every member."""
    parts = [m.predictions(split) for m in members]
    for member, part in zip(members[1:], parts[1:], strict=True):
        if not np.array_equal(part.clip_ids, parts[0].clip_ids) or not np.array_equal(part.targets, parts[0].targets):
            raise InputError(f"{member.path}: its {split} clips are not those of {members[0].path}")
    kind = parts[0].kind
    probability = sum(w * kind.probabilities(p.logits) for w, p in zip(weights, parts, strict=True))
    return Predictions(
        split=split,
        clip_ids=parts[0].clip_ids,
        segments=parts[0].segments,
        groups=parts[0].groups,
        logits=kind.logits_of(np.asarray(probability)),
        targets=parts[0].targets,
        kind=kind,
    )


def choose_weights(members: Sequence[Run]) -> list[float]:
    """Return the weights with the lowest class loss on the held-out part, by coordinate search in steps of 1/20.

    Raises:
        InputError: a member was trained without a held-out part.
    """
    for member in members:
        if member.metric("held_out") is None:
            raise InputError(
                f"{member.path}: trained without a held-out part, as by the paper's schedule; give --weights as "
                "numbers, or leave them out for equal ones"
            )
    weights = [1.0 / len(members)] * len(members)
    best = measure(fuse(members, "held_out", weights), seed=0, started=0.0).loss
    for _ in range(3):
        for place in range(len(members)):
            for step in range(WEIGHT_STEPS + 1):
                candidate = _with_share(weights, place, step / WEIGHT_STEPS)
                loss = measure(fuse(members, "held_out", candidate), seed=0, started=0.0).loss
                if loss < best - 1e-9:
                    best, weights = loss, candidate
    return weights


def _with_share(weights: Sequence[float], place: int, share: float) -> list[float]:
    """Return the weights with one set to `share` and the others scaled to fill up 1."""
    rest = sum(w for i, w in enumerate(weights) if i != place)
    if rest == 0:
        return [share if i == place else (1 - share) / (len(weights) - 1) for i in range(len(weights))]
    return [share if i == place else w * (1 - share) / rest for i, w in enumerate(weights)]


def _normalised(members: Sequence[Run], weights: Sequence[float]) -> list[float]:
    if len(weights) != len(members):
        raise InputError(f"{len(weights)} weights for {len(members)} runs; give one a run")
    if not all(np.isfinite(w) and w >= 0 for w in weights) or not sum(weights) > 0:
        raise InputError(f"weights {list(weights)}: expected numbers of at least 0 with a positive sum")
    return [w / sum(weights) for w in weights]


def _check_members(members: Sequence[Run]) -> RunConfig:
    """Return the first member's config after checking that all share cache and protocol.

    Fine-tuned runs need not share the cache, but dataset and annotations: each has another backbone.
    """
    if len(members) < 2:
        raise InputError("an ensemble needs at least two runs")
    places = [member.path.resolve() for member in members]
    twice = next((path for path in places if places.count(path) > 1), None)
    if twice is not None:
        raise InputError(f"{twice}: named twice; name each run once, --weights say what each counts")
    configs = []
    for member in members:
        if not isinstance(member.config, RunConfig):
            raise InputError(f"{member.path}: is an ensemble itself; name its members instead")
        configs.append(member.config)
    live = any(config.live is not None for config in configs)  # each fine-tuning ends with a backbone of its own
    for member, config in zip(members[1:], configs[1:], strict=True):
        for what in ("protocol", "labels") if live else ("fingerprint", "protocol", "labels"):
            if getattr(config, what) != getattr(configs[0], what):
                raise InputError(
                    f"{member.path}: another {what} ({getattr(config, what)}) than {members[0].path} "
                    f"({getattr(configs[0], what)}); runs of one cache, protocol and label space can be fused"
                )
    if live and any(m.data().identity["dataset"] != members[0].data().identity["dataset"] for m in members):
        raise InputError("the runs were trained on other datasets or annotations; runs of the same ones can be fused")
    return configs[0]
