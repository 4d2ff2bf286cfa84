"""What tests of several heads share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of tensors that released code produced."""
    shared = os.environ.get("IFCAR_SHARED")
    if not shared:
        pytest.skip("IFCAR_SHARED is not set: the golden tensors of the released code lie there")
    return Path(shared) / "golden"
