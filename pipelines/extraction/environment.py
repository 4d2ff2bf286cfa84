"""What computes: versions of packages and decoders, and the device. Recorded as bookkeeping, outside fingerprints."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import av
import torch

from ifcar import __version__

PACKAGES = ("torch", "torchvision", "pytorchvideo", "numpy", "av", "pillow", "opencv-python-headless", "zarr")
DECODERS = ("libavcodec", "libavformat", "libavutil", "libswscale")  # FFmpeg's, as PyAV brings them
BEGUN_ON = "begun on"  # in a cache's record, what `device_name` says where it was begun
DRIVER = Path("/proc/driver/nvidia/version")


def software() -> dict[str, str]:
    """Return the versions of what decodes and computes; a package that is not installed under its name is left out."""
    found = {"ifcar": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found |= {name: ".".join(map(str, av.library_versions[name])) for name in DECODERS if name in av.library_versions}
    return found | {"python": platform.python_version()}


def device_name(device: str | None) -> str:
    """Return what a device is, with what drives it: the processor's architecture, or the GPU's name and driver.

    Args:
        device: as torch names it; None: cuda where there is one.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type != "cuda":
        return f"{chosen} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    if not torch.cuda.is_available():  # it is another machine's
        return str(chosen)
    driver = re.search(r"\b\d{3}\.[\d.]+\b", DRIVER.read_text() if DRIVER.is_file() else "")
    versions = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
    return f"{torch.cuda.get_device_name(chosen)}, driver {driver.group() if driver else 'unknown'}, {versions}"
