"""Where networks compute."""

from __future__ import annotations

from typing import Annotated

from ifcar.config_fields import Option
from ifcar.errors import InputError

Device = Annotated[str | None, Option("cpu, cuda, cuda:1, …; default: cuda where there is one.")]


def choose_device(device: str | None) -> str:
    """Return the named device, or cuda where there is one, else cpu, and have float32 be float32 on it.

    By default cuDNN rounds what float32 convolutions read to TF32, which keeps 10 bits of 23: a cache would depend on
    where it was made. Whoever wants speed for fewer bits says bf16.

    Raises:
        InputError: cuda is named in vain.
    """
    import torch  # configs declare the option with `Device`, and commands read them before they need torch

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {chosen}: torch sees no CUDA device; use --device cpu")
    torch.backends.cudnn.allow_tf32 = False
    return chosen
