"""Stage one: datasets, decoding, sampling, crops, backbones, RoIAlign and the extraction engine.

`ifcar.extract(…)` calls `ifcar.pipelines.extract.extract`. A folder's name in its package is the folder itself once
anything in it is imported, so the folder can be called.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _CallableFolder(ModuleType):
    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function())

    def __call__(self, *args: Any, **options: Any) -> Any:
        return _function()(*args, **options)


def _function() -> Any:
    return import_module("ifcar.pipelines.extract").extract


sys.modules[__name__].__class__ = _CallableFolder
