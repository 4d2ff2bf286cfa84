"""Weights: every key counts, downloads are pinned, random weights are reproducible and well conditioned."""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.weights import with_torchs_weights
from safetensors.torch import save_file
from torch import Tensor

from ifcar.errors import InputError, MissingDataError
from ifcar.extract.backbones import random_init
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.backbones.downloads import download, sha256_file
from ifcar.extract.backbones.random_init import randomise, synthetic_videos
from ifcar.extract.backbones.spec import INSTANCES, Normalisation, PublishedWeights
from ifcar.extract.weights import load_weights


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return build_backbone(resolve_backbone("i3d_inception", num_frames=8, spatial_stride=32))


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    other = with_torchs_weights(build_backbone(resolve_backbone("i3d_inception", num_frames=8, spatial_stride=16)))
    return {key: value.clone() for key, value in other.state_dict().items()}


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", [None, "model_state", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrapped_and_prefixed_checkpoints_load(
    tmp_path: Path, backbone: Backbone, state: dict[str, Tensor], wrapper: str | None, prefix: str
) -> None:
    marked = {**state, "logits.conv3d.bias": torch.full((400,), 0.25)}
    named = {prefix + key: value for key, value in marked.items() if not key.endswith("num_batches_tracked")}
    path = tmp_path / "w.pyth"
    torch.save(named if wrapper is None else {wrapper: named, "epoch": 3}, path)
    record = load_weights(backbone, str(path), tmp_path)
    assert record.identity == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(path) in record.description
    for key, value in backbone.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, marked[key], rtol=0, atol=0)


CHANGES: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "missing": (
        lambda s: {k: v for k, v in s.items() if not k.startswith("Mixed_5c.b0")},
        r"missing \(Mixed_5c\.b0\.conv3d\.weight, Mixed_5c\.b0\.bn\.weight, .*…\)",
    ),
    "unexpected": (lambda s: {**s, "extra.weight": torch.zeros(1)}, r"1 unexpected \(extra\.weight\)"),
    "shape": (
        lambda s: {**s, "logits.conv3d.weight": torch.zeros(10, 1024, 1, 1, 1)},
        r"1 of another shape \(logits\.conv3d\.weight \(10, 1024, 1, 1, 1\) for \(400, 1024, 1, 1, 1\)\)",
    ),
    "not finite": (lambda s: {**s, "logits.conv3d.bias": torch.full((400,), torch.nan)}, "NaN"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_weights_that_do_not_fit_are_refused_and_leave_the_backbone_alone(
    tmp_path: Path, backbone: Backbone, state: dict[str, Tensor], name: str
) -> None:
    change, message = CHANGES[name]
    path = tmp_path / "w.safetensors"
    save_file(change(state), path)
    before = backbone.logits.conv3d.bias.clone()  # type: ignore[union-attr, operator]
    with pytest.raises(InputError, match=message) as caught:
        load_weights(backbone, str(path), tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    torch.testing.assert_close(backbone.logits.conv3d.bias, before)  # type: ignore[union-attr]


class _Malicious:
    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return print, ("run from a pickle",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.safetensors", b"nonsense"),
        ("w.safetensors", b""),
        ("w.pth", b"nonsense"),
        ("w.pt", b""),
        ("w.pyth", pickle.dumps(_Malicious(), protocol=2)),
        ("w.pth", pickle.dumps({"a": 1}, protocol=2)),
        ("w.bin", b"x"),
    ],
)
def test_unreadable_weights_are_one_line(
    tmp_path: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_weights(backbone, str(path), tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not capsys.readouterr().out


def test_missing_file_and_bad_seed_say_what_to_give(tmp_path: Path, backbone: Backbone) -> None:
    with pytest.raises(MissingDataError, match=r"no such weights file; expected a \.safetensors"):
        load_weights(backbone, str(tmp_path / "gone.pyth"), tmp_path)
    with pytest.raises(InputError, match="expected random:SEED"):
        load_weights(backbone, "random:x", tmp_path)


def at(address: str, sha256: str | None = None) -> PublishedWeights:
    return PublishedWeights(address=address, license="none", normalisation=Normalisation(), sha256=sha256)


def test_download_records_the_sha256_and_refuses_another(tmp_path: Path) -> None:
    source, weights_dir = tmp_path / "source" / "w.pyth", tmp_path / "weights"
    source.parent.mkdir()
    source.write_bytes(b"first")
    path = download(at(source.as_uri()), weights_dir)
    assert path.read_bytes() == b"first"
    sidecar = weights_dir / "w.pyth.sha256"
    assert sidecar.read_text().split() == [hashlib.sha256(b"first").hexdigest(), "w.pyth"]

    source.write_bytes(b"second")
    assert download(at(source.as_uri()), weights_dir).read_bytes() == b"first", "fetched once only"

    path.write_bytes(b"tampered")
    with pytest.raises(InputError, match=r"its SHA-256 is .*, but w\.pyth\.sha256 records"):
        download(at(source.as_uri()), weights_dir)

    path.unlink()
    with pytest.raises(InputError, match="its SHA-256 is"):
        download(at(source.as_uri()), weights_dir)
    assert sorted(p.name for p in weights_dir.iterdir()) == ["w.pyth.sha256"], "nothing half-fetched is left"


def test_download_is_held_against_the_digits_of_a_sha256_that_were_published(tmp_path: Path) -> None:
    source, weights_dir = tmp_path / "source" / "w.pyth", tmp_path / "weights"
    source.parent.mkdir()
    source.write_bytes(b"first")
    digest = hashlib.sha256(b"first").hexdigest()
    with pytest.raises(InputError, match=rf"its SHA-256 is {digest}, but .* was published as 0{digest[:7]}…"):
        download(at(source.as_uri(), f"0{digest[:7]}"), weights_dir)
    assert not list(weights_dir.iterdir())
    path = download(at(source.as_uri(), digest[:8]), weights_dir)
    assert path.read_bytes() == b"first"
    with pytest.raises(InputError, match="was published as"):
        download(at(source.as_uri(), f"0{digest[:7]}"), weights_dir)


def test_no_network_is_one_line_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot download http.*--weights FILE.*--weights random:0") as caught:
        download(at("http://127.0.0.1:9/I3D_8x8_R50.pyth"), tmp_path / "weights")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_random_weights_repeat_and_leave_the_global_generators_alone(
    backbone: Backbone, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        random_init, "_CALIBRATION_CLIPS", 2
    )  # the same draws and layers, of fewer and smaller pictures
    monkeypatch.setattr(random_init, "_CALIBRATION_SIZE", 48)
    torch.manual_seed(5)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    with caplog.at_level(logging.WARNING):
        record = load_weights(backbone, "random:7", tmp_path)
    assert record.identity == "random:7"
    assert "random weights" in caplog.text
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    first = {key: value.clone() for key, value in backbone.state_dict().items()}

    torch.manual_seed(6)
    randomise(backbone, 7)
    assert all(torch.equal(value, first[key]) for key, value in backbone.state_dict().items())
    randomise(backbone, 8)
    assert not torch.equal(backbone.state_dict()["Conv3d_1a_7x7.conv3d.weight"], first["Conv3d_1a_7x7.conv3d.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("spatial_stride", [16, 32])
@pytest.mark.parametrize(("name", "num_frames"), [("i3d_r50", 8), ("slowfast_r50", 8), ("i3d_inception", 16)])
def test_random_features_are_well_conditioned(name: str, num_frames: int, spatial_stride: int) -> None:
    backbone = build_backbone(resolve_backbone(name, num_frames=num_frames, spatial_stride=spatial_stride))
    randomise(backbone, 0)
    assert not any(module.training for module in backbone.modules())
    videos = synthetic_videos(4, num_frames, 112, torch.Generator().manual_seed(123))
    video = backbone.normalise(videos)
    noise = torch.randn(video.shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features, shaken = backbone(video)[INSTANCES], backbone(video + 1e-3 * noise)[INSTANCES]
    stds = features.transpose(0, 1).flatten(1).std(dim=1)
    assert features.isfinite().all()
    assert stds.min() > 0
    assert 0.1 < stds.median() < 10
    assert stds.max() < 100
    pooled = features.mean(dim=(2, 3, 4))
    assert torch.cdist(pooled, pooled)[0, 1:].min() > 0.05 * pooled.norm(dim=1).mean(), "clips are told apart"
    assert (shaken - features).norm() < 0.01 * features.norm(), "no chaos: a small change stays small"
