"""What a cache or a run is, as facts: each of a kind, with how likely a difference in it moves a number.

Facts are named as the files that state them name them: a cache's identity, a run's config.yaml. The order in which
differences are told is a judgement, stated once, in `KINDS`. Figures on other clips or classes are answers to another
question; what the network sees, and which network it is, moves accuracy by points; options and schedule less; another
seed as much as training again does; precision and versions by rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

from ifcar.cache.manifest import flat
from ifcar.errors import InputError
from ifcar.pipelines.configs import from_plain, to_plain
from ifcar.pipelines.runs.config import EnsembleConfig, RunConfig, without_places

if TYPE_CHECKING:  # commands read grid files' options, and their published tables, before they need torch
    from ifcar.cache.reader import CacheReader
    from ifcar.pipelines.runs.data import RunData
    from ifcar.pipelines.runs.finished import Run
    from ifcar.pipelines.scoring.scores import Predictions

Kind = Literal["data", "backbone", "views", "head", "schedule", "seeds", "versions"]


class Moves(IntEnum):
    """How likely a difference moves a number, the likeliest first."""

    TASK = 0
    MUCH = 1
    SOMEWHAT = 2
    CHANCE = 3
    ROUNDING = 4


MEANING = {
    Moves.TASK: "another question",
    Moves.MUCH: "likely, much",
    Moves.SOMEWHAT: "likely, somewhat",
    Moves.CHANCE: "as training again does",
    Moves.ROUNDING: "hardly, by rounding",
}
# The longest beginning of a fact's name that stands here says of what kind it is; the order is that of a listing.
KINDS: Mapping[str, tuple[Kind, Moves]] = {
    "dataset": ("data", Moves.MUCH),
    "dataset.name": ("data", Moves.TASK),
    "protocol": ("data", Moves.TASK),
    "labels": ("data", Moves.TASK),
    "classes": ("data", Moves.TASK),
    "num_classes": ("data", Moves.TASK),
    "num_test": ("data", Moves.TASK),
    "num_train": ("data", Moves.MUCH),
    "clips": ("data", Moves.TASK),
    "test clips": ("data", Moves.TASK),
    "test labels": ("data", Moves.TASK),
    "training clips": ("data", Moves.MUCH),
    "training labels": ("data", Moves.MUCH),
    "boxes": ("data", Moves.MUCH),
    "streams": ("data", Moves.MUCH),  # the identities of the caches that are joined
    "fingerprint": ("data", Moves.MUCH),
    "protocol_digest": ("data", Moves.MUCH),
    "feature_version": ("backbone", Moves.MUCH),
    "backbone": ("backbone", Moves.MUCH),
    "backbone.precision": ("backbone", Moves.ROUNDING),
    "live": ("backbone", Moves.SOMEWHAT),
    "views": ("views", Moves.MUCH),
    "views.num_views": ("views", Moves.SOMEWHAT),
    "views.num_augmented_views": ("views", Moves.SOMEWHAT),
    "views.min_scale": ("views", Moves.SOMEWHAT),
    "views.flip": ("views", Moves.SOMEWHAT),
    "views.cropping": ("views", Moves.SOMEWHAT),
    "views.seed": ("views", Moves.CHANCE),
    "arrays": ("views", Moves.SOMEWHAT),
    "head": ("head", Moves.MUCH),
    "members": ("head", Moves.MUCH),
    "fine_tune": ("head", Moves.MUCH),
    "distil_from": ("head", Moves.SOMEWHAT),
    "options of its own": ("head", Moves.SOMEWHAT),
    "options": ("head", Moves.SOMEWHAT),
    "options.streams": ("head", Moves.MUCH),
    "options.joint.streams": ("head", Moves.MUCH),
    "aux_weights": ("head", Moves.SOMEWHAT),
    "weights": ("head", Moves.SOMEWHAT),
    "chosen_on": ("head", Moves.SOMEWHAT),
    "preset": ("head", Moves.SOMEWHAT),
    "schedule": ("schedule", Moves.SOMEWHAT),
    "schedule.precision": ("schedule", Moves.ROUNDING),
    "seed": ("seeds", Moves.CHANCE),
    "versions.features": ("versions", Moves.ROUNDING),
    "versions.training": ("versions", Moves.ROUNDING),
}
LABELS = ("protocol", "labels", "classes")
COUNTS = ("num_classes", "num_train", "num_test")
ANNOTATED = "the dataset's own"  # boxes, where no file of others is named


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One thing that a cache or a run is.

    Args:
        name: as its file calls it, with dots between.
        value: plain; text, number, list or None.
    """

    name: str
    value: Any

    @property
    def entry(self) -> str:
        """The longest beginning of its name in `KINDS`; what no one there knows is of the data."""
        parts = self.name.split(".")
        beginnings = (".".join(parts[:size]) for size in range(len(parts), 0, -1))
        return next((name for name in beginnings if name in KINDS), "dataset")

    @property
    def kind(self) -> Kind:
        """What it is a fact of."""
        return KINDS[self.entry][0]

    @property
    def moves(self) -> Moves:
        """How likely a difference in it moves a number."""
        return KINDS[self.entry][1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that is known of one side of a comparison.

    Args:
        facts: in any order, each name once.
        clips: lists of clips by what they are ("clips", "test clips", "training clips"), each clip with its label
            where it has one.
        partial: whether a fact that is not there is unknown, as in a paper; else it is left out as without effect.
        unstated: names in `KINDS` of what it cannot state, as a cache no protocol.
    """

    facts: Sequence[Fact]
    clips: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    partial: bool = False
    unstated: frozenset[str] = frozenset()

    def knows(self, name: str) -> bool:
        """Return whether it says what this fact is, if only by leaving it out."""
        stated = any(fact.name == name for fact in self.facts)
        return stated or not (self.partial or Fact(name=name, value=None).entry in self.unstated)


def config_facts(config: RunConfig | EnsembleConfig) -> list[Fact]:
    """Return what a run's config states beside where files lie."""
    if isinstance(config, EnsembleConfig):
        content = {key: value for key, value in to_plain(config).items() if key != "cache"}
    else:
        content = {**without_places(config), "options": _options(config)}
    return [Fact(name=name, value=value) for name, value in flat(content).items() if value != {}]


def _options(config: RunConfig) -> Mapping[str, Any]:
    """Return a head's options with the defaults of those that a run of before does not state."""
    from ifcar.heads.catalog import HEADS  # torch

    try:
        kind = HEADS.get(config.head).config_type
        stated: Mapping[str, Any] = to_plain(from_plain(kind, config.options, f"head {config.head}"))
    except InputError:  # a head or an option that is not known here
        stated = to_plain(config.options)
    return stated


def cache_facts(reader: CacheReader) -> Facts:
    """Return what a cache is."""
    facts = [*identity_facts(reader.identity, reader.spec.names()), *version_facts("features", reader.environment)]
    facts.append(Fact(name="fingerprint", value=reader.fingerprint))
    clips = {"clips": dict.fromkeys(reader.clip_ids)}
    return Facts(
        facts=facts, clips=clips, unstated=frozenset({*LABELS, *COUNTS, "protocol_digest", "versions.training"})
    )


def run_facts(run: Run) -> Facts:
    """Return what a run is: its config, the data that it kept, and the clips that it was tested on.

    Raises:
        MissingDataError, InputError: a file of the run is missing or damaged.
    """
    data = run.data()
    own = [fact for fact in config_facts(run.config) if fact.name not in LABELS and not _of_identity(fact)]
    if not any(fact.name == "seed" for fact in own):
        own.append(Fact(name="seed", value=run.metrics[0].seed))
    versions = version_facts("features", data.made_with) + version_facts("training", data.trained_with)
    facts = [*identity_facts(data.identity, data.spec.names()), *_label_facts(data), *own, *versions]
    clips: dict[str, Mapping[str, Any]] = {}
    for split, name in (("test", "test"), ("train", "training")):
        try:
            clips[f"{name} clips"] = _labelled(run.predictions(split))
        except InputError:  # a part that was not scored
            continue
    return Facts(facts=facts, clips=clips)


def _of_identity(fact: Fact) -> bool:
    """Return whether a config's fact is of what a live backbone sees, which the run's identity states too."""
    group, _, name = fact.name.rpartition(".")
    return group.startswith("live.data") and name not in ("cropping", "min_scale", "flip")


def version_facts(what: str, versions: Mapping[str, Any]) -> list[Fact]:
    """Return versions as facts of what was made with them, "features" or "training"."""
    return [Fact(name=f"versions.{what}.{name}", value=value) for name, value in versions.items()]


def identity_facts(identity: Mapping[str, Any], arrays: Iterable[str]) -> list[Fact]:
    """Return what a cache's identity states, and which arrays there are."""
    given = identity.get("boxes")
    boxes = ANNOTATED if given is None else f"a file of SHA-256 {given['sha256'][:12]}"
    facts = [Fact(name=name, value=value) for name, value in flat({**identity, "boxes": boxes}).items()]
    return [*facts, Fact(name="arrays", value=sorted(arrays))]


def _label_facts(data: RunData) -> list[Fact]:
    values = (data.protocol, data.labels, list(data.classes))
    return [Fact(name=name, value=value) for name, value in zip(LABELS, values, strict=True)]


def _labelled(predictions: Predictions) -> dict[str, Any]:
    targets = predictions.targets.tolist()
    return dict(zip(predictions.clip_ids.tolist(), map(str, targets), strict=True))
