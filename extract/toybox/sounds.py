"""Sound of a recording: the noises of its acts while these go on, over a hum that says nothing of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ifcar.extract.audio import SAMPLE_RATE
from ifcar.extract.toybox.activities import SECONDS, Noise, RecordingPlan
from ifcar.extract.toybox.encode import FRAMES_PER_SECOND
from ifcar.extract.toybox.motion import Rng, ease
from ifcar.extract.toybox.sprites import FloatArray

_SOUND_STREAM, _HUM_STREAM = 10, 11
_ACTING = (0.2, 0.8)
"""The share of an act in which it sounds."""
_FADE = 0.05


def recording_sound(plan: RecordingPlan, seed: int, *, acts: bool = True) -> NDArray[np.float32]:
    """Return the samples in [−1, 1] of a recording, with its acts or of the hum alone."""
    heard = _hum(np.random.default_rng([seed, plan.number, _HUM_STREAM]), SECONDS * SAMPLE_RATE)
    rng = np.random.default_rng([seed, plan.number, _SOUND_STREAM])
    for act, atomic in zip(plan.acts, plan.atomics, strict=True) if acts else ():
        first, stop = (frame * SAMPLE_RATE // FRAMES_PER_SECOND for frame in (act.start_frame, act.stop_frame))
        if atomic.noise is not None:
            heard[first:stop] += _noise(rng, atomic.noise, stop - first)
    return np.clip(heard, -1.0, 1.0).astype(np.float32)


def _noise(rng: Rng, noise: Noise, count: int) -> FloatArray:
    """Return an act's noise: its pitch, loudness and pulses vary from act to act."""
    seconds = np.arange(count) / SAMPLE_RATE
    pitch = rng.uniform(0.93, 1.07)
    if noise.low_hz == noise.high_hz:
        own = np.sin(2 * np.pi * pitch * noise.low_hz * seconds + rng.uniform(0, 2 * np.pi))
    else:
        spectrum = np.fft.rfft(rng.normal(size=count))
        hertz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
        spectrum[(hertz < pitch * noise.low_hz) | (hertz > pitch * noise.high_hz)] = 0
        own = np.fft.irfft(spectrum, count)
        own /= 2 * own.std()
    pulses = noise.pulses * rng.uniform(0.85, 1.15)
    beat = 0.6 + 0.4 * np.sin(2 * np.pi * pulses * seconds + rng.uniform(0, 2 * np.pi))
    u = np.linspace(0.0, 1.0, count)
    begin, end = _ACTING
    shape = ease(u, begin, begin + _FADE) * (1 - ease(u, end - _FADE, end))
    return np.asarray(rng.uniform(0.12, 0.3) * own * beat * shape)


def _hum(rng: Rng, count: int) -> FloatArray:
    """Return a room's hum: a low tone with overtones and a hiss, both of a loudness of its own."""
    seconds = np.arange(count) / SAMPLE_RATE
    lowest = rng.uniform(60, 180)
    hum = sum(
        rng.uniform(0.2, 1.0) / k * np.sin(2 * np.pi * k * lowest * seconds + rng.uniform(0, 2 * np.pi))
        for k in range(1, 5)
    )
    swell = 1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.05, 0.3) * seconds + rng.uniform(0, 2 * np.pi))
    return np.asarray(rng.uniform(0.01, 0.05) * swell * hum + rng.uniform(0.001, 0.006) * rng.normal(size=count))
