"""Log-mel patches of sound, as VGGish reads them (Hershey et al. 2017).

Frames of 400 samples every 160, times a periodic Hann window, Fourier transform of 512, its magnitude, 64 triangular
bands even on the HTK mel scale from 125 to 7,500 Hz, log(x + 0.01). A patch is 96 frames, 0.975 s with the last one.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ifcar.extract.audio import SAMPLE_RATE

WINDOW, HOP, FFT_SIZE = 400, 160, 512
NUM_FRAMES, NUM_BANDS = 96, 64
LOWEST_HZ, HIGHEST_HZ = 125.0, 7500.0
PATCH_SAMPLES: Final = (NUM_FRAMES - 1) * HOP + WINDOW
_LOG_OFFSET = 0.01


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the patch of `PATCH_SAMPLES` samples in [−1, 1]: (96, 64) float32, time by band."""
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    magnitudes = np.abs(np.fft.rfft(frames * hann, FFT_SIZE))  # (96, 257)
    patch: NDArray[np.float32] = np.log(magnitudes @ band_weights() + _LOG_OFFSET).astype(np.float32)
    return patch


def mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return frequencies on the HTK mel scale."""
    scaled: NDArray[np.float64] = 1127.0 * np.log1p(hertz / 700.0)
    return scaled


@cache
def band_weights() -> NDArray[np.float64]:
    """Return (257, 64), how much each frequency of the transform counts in each band: triangles on the mel scale."""
    lowest, highest = mel(np.array([LOWEST_HZ, HIGHEST_HZ])).tolist()
    edges = np.linspace(lowest, highest, NUM_BANDS + 2)
    places = mel(np.arange(FFT_SIZE // 2 + 1, dtype=np.float64) * (SAMPLE_RATE / FFT_SIZE))[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    weights: NDArray[np.float64] = np.maximum(
        0.0, np.minimum((places - low) / (centre - low), (high - places) / (high - centre))
    )
    return weights
