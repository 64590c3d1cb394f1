"""Threads that still read, decode or hand on photos when nobody wants any."""

import threading
import time

from fastaugself.data.readers import ffcv as ffcv_source

NAMES = ("decode", "fastaugself-ffcv", "open", "read-ahead", "to-device")
PATIENCE = 1.0  # seconds for what was cancelled to be taken out of a queue


def working():
    """Their names. FFCV's threads are kept for the next epoch: those of a pool with nothing to do do not count."""
    pools = [pool for kept in ffcv_source._pools.values() for pool in kept]
    until = time.monotonic() + PATIENCE
    while not all(pool._work_queue.empty() for pool in pools) and time.monotonic() < until:
        time.sleep(0.001)
    idle = {thread.ident for pool in pools if pool._work_queue.empty() for thread in pool._threads}
    return [t.name for t in threading.enumerate() if t.name.startswith(NAMES) and t.ident not in idle]
