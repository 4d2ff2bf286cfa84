"""Batches that do not fit in memory, and what a batch's size changes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.decoded import decoded_views
from fixtures.weights import random_weights

from ifcar.cache.arrays import CacheSpec
from ifcar.devices import choose_device
from ifcar.errors import InputError, is_out_of_memory
from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.decode_ahead import decode_ahead
from ifcar.extract.decoded_views import Decoded
from ifcar.extract.extractor import EngineOptions, FeatureExtractor, fault_of_features
from ifcar.extract.weights import load_weights

SPEC = CacheSpec.standard(num_frames=8, num_steps=4, num_instances=2, channels=2048, pooled_size=3)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
]


def extractor(near: Path, *, batch_size: int, fits: int = 100, error: Exception = OUT_OF_MEMORY[0]) -> FeatureExtractor:
    """Return one whose network raises an error beyond `fits` views."""
    backbone = build_backbone(resolve_backbone("i3d_r50", crop_size=32))
    load_weights(backbone, random_weights(near))

    def need_memory(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > fits:
            raise error

    backbone.register_forward_pre_hook(need_memory)
    return FeatureExtractor(backbone.eval(), SPEC, "3", EngineOptions(batch_size=batch_size))


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    first, second = a.astype(np.float64), b.astype(np.float64)
    return float(np.linalg.norm(first - second) / np.linalg.norm(first))


@pytest.mark.slow
def test_batch_that_does_not_fit_is_halved_said_once_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    views = decoded_views(5)
    whole, cramped = extractor(tmp_path, batch_size=5), extractor(tmp_path, batch_size=5, fits=2)
    with caplog.at_level(logging.WARNING, logger="ifcar.extract.extractor"):
        first, second = cramped(views), cramped(views)
    said = [record.getMessage() for record in caplog.records if "do not fit" in record.getMessage()]
    assert said == ["5 views at once do not fit in memory; going on with 2"]
    for name, values in whole(views).items():
        assert first[name].shape == values.shape and np.array_equal(first[name], second[name])
        assert relative_difference(values, first[name]) < 1e-3


def test_view_that_does_not_fit_by_itself_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one view does not fit in the memory of cpu; take fewer --frames"):
        extractor(tmp_path, batch_size=4, fits=0, error=OUT_OF_MEMORY[-1])(decoded_views(2))


@pytest.mark.parametrize("error", [*OUT_OF_MEMORY, MemoryError()])
def test_memory_that_runs_out_is_known_whoever_says_so(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: an illegal memory access"), ValueError("out of memory")])
def test_other_errors_are_not_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_commands_compute_in_full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    choose_device("cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "batch_size"), [(1, 3), (2, 4), (2, 1)])
def test_decoding_ahead_is_bounded_for_all_workers_together(workers: int, batch_size: int) -> None:
    """A row is decoded when it is at most five batches, or two rows a worker, ahead of what was taken."""
    asked: list[int] = []

    def tasks() -> Iterator[list[int]]:
        for row in range(100):
            asked.append(row)
            yield [row]

    options = EngineOptions(batch_size=batch_size, num_workers=workers)
    decoded = decode_ahead(decoded_views(100, crop=2), tasks(), options)  # type: ignore[arg-type]
    for taken in range(1, 20):
        assert next(decoded).row == taken - 1
        assert len(asked) <= taken + max(2 * workers, 5 * batch_size)
    rows = decode_ahead(decoded_views(100, crop=2), [range(100)], options)  # type: ignore[arg-type]
    assert [item.row for item in rows] == list(range(100))


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_sent_in_groups_keep_their_pixels_and_failures_have_none(workers: int) -> None:
    views = decoded_views(11, crop=2)
    views[3], views[8] = Decoded(row=3, failure="damaged"), Decoded(row=8, failure="missing")
    found = list(decode_ahead(views, [range(7), range(7, 11)], EngineOptions(num_workers=workers)))  # type: ignore[arg-type]
    assert [item.failure for item in found] == [item.failure for item in views]
    for item, own in zip(found, views, strict=True):
        assert (item.inputs is None) == bool(own.failure)
        assert own.inputs is None or torch.equal(item.inputs, own.inputs)


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E01])
def test_every_infinity_and_nan_of_float16_is_a_fault_and_the_largest_number_none(bits: int) -> None:
    values = np.full((2, 3), 65504, np.float16)
    values[1, 2] = np.uint16(bits).view(np.float16)
    assert not fault_of_features({"a": values}, 0)
    assert fault_of_features({"a": values}, 1).startswith("a leave the range of float16")


@pytest.mark.slow
def test_batch_size_changes_features_by_rounding_only(tmp_path: Path) -> None:
    views = decoded_views(6)
    by_one, by_six = extractor(tmp_path, batch_size=1), extractor(tmp_path, batch_size=6)
    single = [by_one([view]) for view in views]
    for name, values in by_six(views).items():
        assert relative_difference(values, np.concatenate([one[name] for one in single])) < 1e-3
