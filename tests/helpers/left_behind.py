"""Finds threads of loaders that still run after their loader was closed."""

import threading
import time

from fastaugself.data.readers import ffcv as ffcv_source

NAMES = ("decode", "fastaugself-ffcv", "open", "read-ahead", "to-device")
TIMEOUT = 1.0  # seconds until cancelled work must have left the queues


def working():
    """Names of the running threads, without idle threads of FFCV's pools, which are kept for the next epoch."""
    pools = [pool for kept in ffcv_source.idle_pools.values() for pool in kept]
    until = time.monotonic() + TIMEOUT
    while not all(pool._work_queue.empty() for pool in pools) and time.monotonic() < until:
        time.sleep(0.001)
    idle = {thread.ident for pool in pools if pool._work_queue.empty() for thread in pool._threads}
    return [t.name for t in threading.enumerate() if t.name.startswith(NAMES) and t.ident not in idle]
