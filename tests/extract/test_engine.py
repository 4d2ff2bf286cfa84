"""Batches that do not fit in memory, and what a batch's size changes."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from fixtures.decoded import decoded_views

from ifcar.cache.schema import CacheSpec
from ifcar.errors import InputError
from ifcar.extract.backbones.catalog import build_backbone
from ifcar.extract.backbones.random_init import randomise
from ifcar.extract.engine import EngineOptions, FeatureExtractor

SPEC = CacheSpec(num_frames=8, num_steps=4, num_instances=2, channels=2048, pooled_size=3)


def extractor(*, batch_size: int, fits: int = 100) -> FeatureExtractor:
    """Return one whose network runs out of memory beyond `fits` views."""
    backbone = build_backbone("i3d_r50", num_frames=8, spatial_stride=16)
    randomise(backbone, 0)

    def need_memory(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")

    backbone.register_forward_pre_hook(need_memory)
    return FeatureExtractor(backbone.eval(), SPEC, "3", EngineOptions(batch_size=batch_size))


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    first, second = a.astype(np.float64), b.astype(np.float64)
    return float(np.linalg.norm(first - second) / np.linalg.norm(first))


def test_batch_that_does_not_fit_is_halved_said_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    views = decoded_views(5)
    whole, cramped = extractor(batch_size=5), extractor(batch_size=5, fits=2)
    with caplog.at_level(logging.WARNING, logger="ifcar.extract.engine"):
        first, second = cramped(views), cramped(views)
    said = [record.getMessage() for record in caplog.records if "do not fit" in record.getMessage()]
    assert said == ["5 views at once do not fit in memory; going on with 2"]
    for name, values in whole(views).items():
        assert first[name].shape == values.shape and np.array_equal(first[name], second[name])
        assert relative_difference(values, first[name]) < 1e-3


def test_view_that_does_not_fit_by_itself_is_one_line() -> None:
    with pytest.raises(InputError, match="one view does not fit in the memory of cpu; take fewer --frames"):
        extractor(batch_size=4, fits=0)(decoded_views(2))


def test_batch_size_changes_features_by_rounding_only() -> None:
    views = decoded_views(6)
    by_one, by_six = extractor(batch_size=1), extractor(batch_size=6)
    single = [by_one([view]) for view in views]
    for name, values in by_six(views).items():
        assert relative_difference(values, np.concatenate([one[name] for one in single])) < 1e-3
