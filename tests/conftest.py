"""One thread for torch, here and in processes that tests start: networks are so small that a second one only waits.

Files with many slow tests go first, so that no process is left alone with the longest of them (pytest-xdist hands out
whole files in this order).
"""

import os
from collections import Counter

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch
from fixtures.browser import browser  # noqa: F401  (a fixture)

torch.set_num_threads(1)
# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("ifcar", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("ifcar")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow_tests_in = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow_tests_in[item.path])
