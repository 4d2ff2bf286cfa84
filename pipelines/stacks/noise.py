"""The noise of one step of a stack of heads, from nothing but each run's seed and the step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ifcar.heads.noise import Noise

PHASES = ("fit", "refit")


def draw_noise(
    template: nn.Module, seeds: Sequence[int], phase: str, step: int, num_clips: int, device: torch.device
) -> dict[str, Tensor]:
    """Return the noise of every layer that draws, each (M, B, …), by the name of its buffer.

    A row depends on its own seed, the phase and the step only: no random state needs to be kept, and a run gets the
    noise that it would get alone.
    """
    layers = [(name, layer) for name, layer in template.named_modules() if isinstance(layer, Noise)]
    noise = {
        f"{name}.noise": torch.empty((len(seeds), num_clips, *layer.shape), device=device) for name, layer in layers
    }
    generator = torch.Generator(device)
    for place, seed in enumerate(seeds if layers else ()):
        (word,) = np.random.SeedSequence([seed, PHASES.index(phase), step]).generate_state(1, np.uint64)
        generator.manual_seed(int(word))
        for values in noise.values():
            values[place].uniform_(generator=generator)
    return noise
