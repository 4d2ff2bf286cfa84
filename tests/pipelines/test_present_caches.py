"""Caches keep what they were: fingerprints, random weights and features that version 0.1 made of the same files.

The numbers were printed by that version; fingerprints and draws are the same everywhere, features up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.something_else import write_dataset
from safetensors.torch import save_file

from ifcar.cache.open import open_cache
from ifcar.cache.schema import fingerprint
from ifcar.extract.backbones.catalog import build_backbone
from ifcar.extract.weights import load_weights
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.backbones import backbone_of
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.preparation import cache_spec, provenance_of, view_policy
from ifcar.pipelines.extraction.sources import read_source
from ifcar.pipelines.finetune.start import i3d_config
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import run_id

OPTIONS: dict[str, dict[str, Any]] = {
    "none": {"backbone": "none", "weights": None},
    "i3d_r50": {},
    "i3d_r50, stride 32": {"spatial_stride": 32, "frames": 4, "pooled": "7-max"},
    "slowfast_r50": {"backbone": "slowfast_r50", "grid": True},
    "i3d_inception": {"backbone": "i3d_inception", "grid": True},
    "i3d_inception, stride 32": {"backbone": "i3d_inception", "spatial_stride": 32, "precision": "bf16"},
}
FINGERPRINTS = {
    "none": "5e4b82e037d609c9fde81045be7437895ca9b78c7c5996e75c3ed5d7ec8e0ed0",
    "i3d_r50": "c61645156b8d69b20b1eb083b2cca688e25055410c86021d3150d90e2e536c62",
    "i3d_r50, stride 32": "266cacc31a9478eaa3f5246f48ef768faeb6e25d7a901f707ae43e1c4e747dab",
    "slowfast_r50": "2f1b675ef12d0a4d6b0570aac75373377232ac86480330897dbeee7de84fe632",
    "i3d_inception": "c2beb9bfeb4af02adf5b06577111145d3fb0dd1825593df2bd7e38c63edd85aa",
    "i3d_inception, stride 32": "f451eeffc6b92a4a023f0116ba53092d0338a10a47062e3a91f49daa01845991",
}
# Of random:0: Σ |weight| over everything learned, Σ over running variances.
WEIGHTS = {
    "i3d_r50, stride 32": (876411.1604473757, 48709.03558136523),
    "slowfast_r50": (999490.9903616864, 70845.78731416166),
    "i3d_inception": (331179.39475539146, 8993.359859876335),
    "i3d_inception, stride 32": (331179.39475539146, 10188.733193419874),
}
# Of rows 0 and 1: array → its norm, five of its values.
FEATURES: dict[str, dict[str, tuple[float, list[float]]]] = {
    "i3d_r50, stride 32": {
        "frame_features": (370.2316, [3.26367, 4.26953, 2.81055, 4.04297, 3.54883]),
        "instance_features": (523.5865, [0.0, 4.82031, 4.77734, 0.0, 0.0]),
    },
    "slowfast_r50": {
        "frame_features": (393.0836, [4.15234, 3.69727, 4.53125, 3.69141, 4.86719]),
        "grid_features": (792.1256, [3.82227, 4.21875, 4.19531, 3.49805, 4.96484]),
        "instance_features": (1675.1119, [0.0, 3.28711, 4.03516, 0.0, 0.0]),
    },
    "i3d_inception": {
        "frame_features": (71.3573, [0.4292, 2.00195, 1.54785, 2.82227, 0.93701]),
        "grid_features": (158.0014, [0.0, 2.08008, 0.50488, 2.75586, 0.0]),
        "instance_features": (324.6778, [0.0, 0.74121, 0.95215, 0.0, 0.0]),
    },
    "i3d_inception, stride 32": {
        "frame_features": (73.7502, [0.625, 1.01562, 1.35938, 1.57812, 1.25]),
        "instance_features": (312.8957, [1.28125, 0.0, 2.07812, 0.60547, 0.0]),
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "d")


def config(root: Path, name: str, out: Path | None = None) -> ExtractConfig:
    shared = {"dataset": "something-else", "data_root": root, "out": out, "weights": "random:0", "crop": 32}
    values: dict[str, Any] = {**shared, "workers": 0, "batch_size": 4, "limit": 2, **OPTIONS[name]}
    return ExtractConfig(**values)


def as_then(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity with the feature version of then: what changed since is which pictures odd videos show."""
    return {**identity, "feature_version": 3}


@pytest.mark.parametrize("name", OPTIONS)
def test_fingerprint_is_what_it_was(root: Path, name: str) -> None:
    chosen = config(root, name)
    facts, source = backbone_of(chosen), read_source(chosen, Silent(), needs_pixels=name != "none")
    policy = view_policy(chosen)
    identity = as_then(provenance_of(chosen, source, policy, facts, chosen.weights or "none").identity)
    spec = cache_spec(chosen, policy, facts, source.arrays())
    assert fingerprint(spec, identity, source.clip_ids(), policy.views) == FINGERPRINTS[name]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"backbone": "i3d_r50"}, "56050e736b2e8ebbe492a3ae4789b6fe637d602aad6c7b6ff22f293d7595acd4"),
        (
            {"backbone": "i3d_inception", "spatial_stride": 32, "frames": 16, "reduction": 16},
            "f433777632ac65103111a4c6baea28c8cd8ed087086e5794f11af757014f6e89",
        ),
    ],
)
def test_fine_tunings_keep_their_ids(options: dict[str, Any], expected: str) -> None:
    config = i3d_config("something-else", protocol="compositional", weights="random:0", **options)
    assert run_id(replace(config, fingerprint="f", protocol_digest="p")) == expected


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.slow
def test_random_weights_and_their_features_are_what_they_were(root: Path, tmp_path: Path, name: str) -> None:
    chosen = config(root, name, tmp_path / "a.zarr")
    backbone = build_backbone(backbone_of(chosen))
    drawn = load_weights(backbone, "random:0").identity
    learned = sum(float(value.detach().double().abs().sum()) for value in backbone.parameters())
    statistics = sum(float(v.double().sum()) for k, v in backbone.state_dict().items() if k.endswith("running_var"))
    assert learned == pytest.approx(WEIGHTS[name][0], rel=1e-6)
    assert statistics == pytest.approx(WEIGHTS[name][1], rel=1e-3)
    file = tmp_path / "drawn.safetensors"  # drawing them again would take longer than all else
    save_file(backbone.state_dict(), file)
    extract(replace(chosen, weights=str(file)), Silent())
    reader = open_cache(tmp_path / "a.zarr")
    identity = as_then(reader.identity)
    identity["backbone"] = {**identity["backbone"], "weights": drawn}
    found = fingerprint(reader.spec, identity, reader.clip_ids, reader.num_views)
    assert found == FINGERPRINTS[name]
    for array, (norm, some) in FEATURES[name].items():
        found = reader.read_rows(array, np.arange(2)).astype(np.float64)
        assert np.linalg.norm(found) == pytest.approx(norm, rel=1e-2)
        shown = found.reshape(-1)[found.size // 8 :: found.size // 5][:5]
        np.testing.assert_allclose(shown, some, rtol=3e-2, atol=3e-2, err_msg=array)


def test_statistics_of_each_channel_normalise_to_the_bits_of_one_number_for_all() -> None:
    for name, mean, std in (("i3d_r50", 0.45, 0.225), ("i3d_inception", 0.5, 0.5)):
        backbone = build_backbone(backbone_of(ExtractConfig(dataset="toybox", backbone=name)))
        frames = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16, 1).repeat(1, 1, 1, 1, 3)
        expected = frames.permute(0, 4, 1, 2, 3).float().mul_(1 / (255 * std)).sub_(mean / std)
        assert torch.equal(backbone.normalise(frames), expected)
