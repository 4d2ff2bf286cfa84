"""Scoring clips with a model in training, as stage one and then the head would: through float16 features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ifcar.errors import InputError
from ifcar.extract.decoded_views import Decoded
from ifcar.extract.extractor import EngineOptions, FeatureExtractor, fault_of_features
from ifcar.pipelines.feed.examples import Examples
from ifcar.pipelines.feed.subjects import ask_about, grouped
from ifcar.pipelines.finetune.data import PREFETCHED, stack_views
from ifcar.pipelines.finetune.trainer import LiveTrainer
from ifcar.pipelines.scoring.scores import Predictions, clip_predictions

BATCH = 16  # views at once


@torch.no_grad()
def score_live(trainer: LiveTrainer, examples: Examples) -> Predictions:
    """Score every clip of a part in evaluation mode and float32, pooling the scores of its plain views.

    Features are made and rounded to float16 as `ifcar extract` does, so that the head gives the same logits from a
    cache of this backbone. The processes of a group share the rows.

    Raises:
        InputError: a clip cannot be decoded, or its features leave the range of float16.
    """
    group, model = trainer.group, trainer.model
    model.eval()
    options = EngineOptions(batch_size=BATCH, device=str(group.device))
    extractor = FeatureExtractor(model.backbone, trainer.spec, model.pooled, options)
    rows, places = examples.plain_rows()
    by_row = grouped(rows)  # a row is shown once, however many of its instances are asked about
    mine = by_row[group.number :: group.size]
    logits = np.zeros((len(rows), model.head.num_classes), np.float32)
    loader = DataLoader(
        trainer.plain_views,
        sampler=[int(rows[asked[0]]) for asked in mine],
        batch_size=None,
        num_workers=trainer.num_workers,
        prefetch_factor=PREFETCHED if trainer.num_workers else None,
        multiprocessing_context="fork" if trainer.num_workers else None,
    )
    views, parts, noted = iter(loader), [], dict[str, str]()
    for start in range(0, len(mine), BATCH):
        asked = mine[start : start + BATCH]
        batch = [next(views) for _ in asked]
        of = torch.repeat_interleave(torch.tensor([len(own) for own in asked]))
        parts.append(_score(trainer, extractor, batch, examples.order_of(places[np.concatenate(asked)]), of))
        rows_per_clip = trainer.plain_views.policy.rows_per_clip
        noted |= {trainer.clip_ids[item.row // rows_per_clip]: item.note for item in batch if item.note}
    found = group.gather((np.concatenate(parts) if parts else logits[:0], noted))
    for number, (part, notes) in enumerate(found):
        if len(part):
            logits[np.concatenate(by_row[number :: group.size])] = part
        trainer.noted.update(notes)
    return clip_predictions(logits, examples, trainer.pool)


def _score(
    trainer: LiveTrainer, extractor: FeatureExtractor, batch: list[Decoded], order: Tensor | None, of: Tensor
) -> NDArray[np.float32]:
    _, of_view = stack_views(batch, trainer.model.of_view, trainer.group.device)
    features = extractor(batch)
    for place, item in enumerate(batch):
        fault = fault_of_features(features, place)
        if fault:
            raise InputError(f"{trainer.clip_ids[item.row // trainer.plain_views.policy.rows_per_clip]}: {fault}")
    made = {name: torch.from_numpy(value).to(trainer.group.device) for name, value in features.items()}
    out = trainer.model.head(ask_about(order, trainer.model.batch(of_view, made), trainer.spec, of))
    logits: NDArray[np.float32] = out.logits.float().cpu().numpy()
    return logits
