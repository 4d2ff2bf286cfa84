"""Whether torch's own bfloat16 may be trusted with a backbone's gradients here."""

from __future__ import annotations

import torch

MOST_ERROR = 0.1  # relative; rounding gives about 0.01


def has_right_gradients(device: torch.device) -> bool:
    """Return whether a convolution over two steps has nearly the same weight gradient in bfloat16 as in float32.

    On some processors torch's gives one that is wrong by its whole size, or infinite, for few channels and few steps,
    and not every time.
    """
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(4, 16, 2, 4, 4, generator=generator).to(device)
    weight = torch.randn(48, 16, 3, 3, 3, generator=generator).to(device)

    def gradient(precision: torch.dtype) -> torch.Tensor:
        kernel = weight.clone().requires_grad_()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision is torch.bfloat16):
            loss = torch.nn.functional.conv3d(video, kernel, padding=1).float().square().sum()
        (found,) = torch.autograd.grad(loss, kernel)
        return found

    expected = gradient(torch.float32)
    return all(float((gradient(torch.bfloat16) - expected).norm() / expected.norm()) < MOST_ERROR for _ in range(3))
