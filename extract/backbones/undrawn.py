"""Building a network without drawing the weights that it is about to be given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_DRAWS: Final = frozenset((torch.ops.aten.normal_.default, torch.ops.aten.uniform_.default))


class _Zeros(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fills with zeros what would be filled with random numbers."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _DRAWS:
            return args[0].zero_()
        return func(*args, **(kwargs or {}))


@contextmanager
def undrawn() -> Iterator[None]:
    """Have modules start from zeros where they would draw their weights, and leave the global generators as they are.

    Drawing 28 million numbers takes a second, and the weights that follow overwrite every one. A network that keeps
    any of its own starting weights is not built in here.
    """
    with torch.random.fork_rng(devices=[]), _Zeros():  # type: ignore[no-untyped-call]
        yield
