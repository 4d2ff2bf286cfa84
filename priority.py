"""Which threads go first on a shared core."""

from __future__ import annotations

import os
import sys
import threading


def give_way() -> None:
    """Give the calling thread, and those that it starts, the lowest priority, where a thread can have its own.

    A reader or decoder on the core of one of a network's threads would hold up the others at the end of each layer.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
