"""What finished runs say of views that are in no cache: about a clip, or about each instance in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ifcar.cache.schema import Category
from ifcar.cache.streams import stream_of
from ifcar.errors import InputError, nearest_of
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.feed.subjects import ask_about, slot_order
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.data import RunData
from ifcar.pipelines.runs.finished import Run, open_run
from ifcar.pipelines.runs.heads import trained_head
from ifcar.pipelines.runs.resolve import head_arrays
from ifcar.pipelines.runs.tasks import on_task


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """A class and its probability."""

    name: str
    probability: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a run says about a clip, or about one instance in it.

    Args:
        slot: of the instance; None for the clip.
        box: of the instance, (cx, cy, w, h) in shares of the first view that shows it, where it is first seen.
        top: the likeliest classes, best first.
        logits: (members, K) float32, averaged over views; one row for a run that is no ensemble.
        probabilities: (K,) float64; an ensemble's are its members', weighted.
    """

    slot: int | None
    box: tuple[float, ...] | None
    top: Sequence[ClassScore]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightedHead:
    """A trained head and its share of the probabilities; 1 for a run that is no ensemble.

    Args:
        path: of the run.
        config: its config.
        share: of the probabilities.
        num_classes: K of the label space that it learned, of several the first.
        stream: that is asked about, "" where it was trained on one cache.
        labels: of several label spaces the one that is asked about, "" for the first.
    """

    path: Path
    config: RunConfig
    share: float
    num_classes: int
    stream: str = ""
    labels: str = ""

    def reads(self) -> tuple[str, ...]:
        """Return the names of the arrays that the head reads of its stream."""
        return tuple(name for name in head_arrays(self.config) if stream_of(name)[0] == self.stream)


def members_of(run: Run, data: RunData) -> list[WeightedHead]:
    """Return the run itself, or the members of an ensemble, which must have been trained on the same data."""
    if isinstance(run.config, RunConfig):
        return [WeightedHead(path=run.path, config=run.config, share=1.0, num_classes=len(data.classes))]
    members = []
    for stored, share in zip(run.config.members, run.config.weights, strict=True):
        member = open_run(Path(stored))
        if not isinstance(member.config, RunConfig) or not member.data().is_same(data):
            raise InputError(f"{member.path}: trained on other data than the ensemble {run.path}; fuse the runs again")
        members.append(WeightedHead(path=member.path, config=member.config, share=share, num_classes=len(data.classes)))
    return members


def on_stream(members: Sequence[WeightedHead], stream: str | None) -> list[WeightedHead]:
    """Return the heads asked about one stream; None: the first that they learned.

    Raises:
        InputError: a head learned no such stream, or was trained on one cache and a stream is named.
    """
    found = list[WeightedHead]()
    for member in members:
        known = list(dict.fromkeys(stream_of(name)[0] for name in head_arrays(member.config)))
        if stream is not None and known == [""]:
            raise InputError(f"--stream {stream} would be ignored: {member.path} has one stream; leave it out")
        if stream is not None and stream not in known:
            apart = f", as {found[0].path} has; ask the members one by one" if found else ""
            raise InputError(f"{member.path}: no stream {stream!r}{apart}{nearest_of(stream, known)}")
        stream = known[0] if stream is None and known[0] else stream
        found.append(replace(member, stream=stream or ""))
    return found


def answered(run: Run, data: RunData, stream: str, labels: str | None) -> RunData:
    """Return the run's data with the label space that is asked about; None: the first that it learned.

    Raises:
        InputError: it learned no such label space.
    """
    if labels in (None, data.labels):
        return data
    if not stream:
        raise InputError(f"--labels {labels}: {run.path} learned the label space {data.labels!r} and knows no other")
    return on_task(run, f"{stream}/{labels}").data()


def asked_about(categories: NDArray[np.uint8]) -> list[int]:
    """Return the slots (N,) that are asked about: subjects, or every instance where none is a subject."""
    subjects = np.flatnonzero(categories == Category.SUBJECT)
    return (subjects if len(subjects) else np.flatnonzero(categories)).tolist()


def answer_of(
    slot: int | None,
    members: Sequence[WeightedHead],
    data: RunData,
    boxes: NDArray[np.float32],
    arrays: Mapping[str, NDArray[Any]],
    device: str,
    num_top: int,
) -> Answer:
    """Return what the members say about the clip, or about the instance in a slot.

    Args:
        slot: the slot; None for the clip.
        members: the heads.
        data: what they were trained on, with the label space that is asked about.
        boxes: (V, T, N, 4) of the views.
        arrays: what the heads read of the views, each (V, …).
        device: where the heads run.
        num_top: how many classes to name.
    """
    order = box = None
    if slot is not None:
        order = torch.from_numpy(slot_order(np.full(len(boxes), slot), boxes))
        own = boxes[:, :, slot].reshape(-1, 4)
        box = tuple(own[own.any(axis=1)][0].tolist())
    logits = np.stack([_score(member, data, arrays, order, device) for member in members])
    probability = np.array([member.share for member in members]) @ data.kind.probabilities(logits)
    best = np.argsort(-probability, kind="stable")[:num_top]
    return Answer(
        slot=slot,
        box=box,
        top=tuple(ClassScore(name=data.classes[k], probability=float(probability[k])) for k in best),
        logits=logits,
        probabilities=probability,
    )


@torch.inference_mode()
def _score(
    member: WeightedHead, data: RunData, arrays: Mapping[str, NDArray[Any]], order: torch.Tensor | None, device: str
) -> NDArray[np.float32]:
    """Return a head's logits (K,), averaged over the views, whose slots are asked about in this order."""
    head = trained_head(member.config, member.path, data.spec, member.num_classes)
    read = InstanceBatch({name: torch.from_numpy(arrays[name]) for name in member.reads()})
    batch = ask_about(order, read, data.spec)
    on = torch.device(device)
    out = head.to(on)(batch.to(on))
    scores = out.tasks[f"{member.stream}/{member.labels}"] if member.labels else out.logits
    logits = scores.float().cpu().numpy()
    mean: NDArray[np.float32] = logits.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean
