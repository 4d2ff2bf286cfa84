"""State dicts as they lie in files: named tensors, perhaps under a wrapper, in one file or in parts."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ifcar.errors import InputError, MissingDataError, one_of

_TORCH_SUFFIXES = (".pyth", ".pt", ".pth")
_SAFE = ".safetensors"
SUFFIXES = (_SAFE, *_TORCH_SUFFIXES)
_OPTIONAL_KEY = "num_batches_tracked"
_NUM_NAMED = 3


def read_state(path: Path, wrappers: Sequence[str]) -> dict[str, Tensor]:
    """Return the bare state dict of a weights file, or of all .safetensors of a folder.

    Args:
        path: of the file or folder.
        wrappers: keys that may hold the state dict; keys that all start with "module." lose that.

    Raises:
        MissingDataError: the folder holds none.
        InputError: a file cannot be read, or holds something else.
    """
    if path.is_dir():
        parts = sorted(path.glob(f"*{_SAFE}"))
        if not parts:
            raise MissingDataError(f"{path}: no {_SAFE} file in this folder; expected model{_SAFE} or its parts")
        state: dict[str, Tensor] = {}
        for part in parts:
            found = read_state(part, wrappers)
            twice = sorted(state.keys() & found.keys())
            if twice:
                raise InputError(
                    f"{part}: holds {twice[0]}, as another file of its folder does; keep one set of weights"
                )
            state |= found
        return state
    try:
        if path.suffix == _SAFE:
            content: object = load_file(path)
        elif path.suffix in _TORCH_SUFFIXES:
            content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            known = one_of((_SAFE, *_TORCH_SUFFIXES))
            raise InputError(f"{path}: unknown kind of weights file {path.suffix!r}; expected {known}")
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, TypeError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise InputError(f"{path}: cannot be read as weights ({first_line}); fetch it again") from error
    for wrapper in wrappers:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds a {type(content).__name__}; expected a state dict of named tensors")
    strays = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if strays:
        raise InputError(f"{path}: entry {strays[0]!r} is no tensor; expected a state dict of named tensors")
    prefix = "module." if all(key.startswith("module.") for key in content) else ""
    return {key.removeprefix(prefix): value for key, value in content.items()}


def faults_of_state(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return what of a state dict does not fit the tensors that a network has, in words; "" where all does.

    BatchNorm's `num_batches_tracked` may be absent.
    """
    both = found.keys() & expected.keys()
    reshaped = [key for key in found if key in both and found[key].shape != expected[key].shape]
    return listed_faults(
        {
            "missing": [key for key in expected if key not in both and not key.endswith(_OPTIONAL_KEY)],
            "unexpected": [key for key in found if key not in both],
            "of another shape": [f"{k} {tuple(found[k].shape)} for {tuple(expected[k].shape)}" for k in reshaped],
        }
    )


def listed_faults(faults: Mapping[str, Sequence[str]]) -> str:
    """Return how many keys have each fault, with the first few of them; "" where none has any."""
    return "; ".join(
        f"{len(keys)} {what} ({', '.join(keys[:_NUM_NAMED])}{', …' if len(keys) > _NUM_NAMED else ''})"
        for what, keys in faults.items()
        if keys
    )


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Return the keys of tensors that hold NaN or infinity."""
    return [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
