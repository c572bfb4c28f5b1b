"""How many threads may compute at the same time."""

import contextlib
import math
import os
from pathlib import Path


def allowed_threads(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """The processors that this process may use, by its affinity and its control group.

    XLA's own pool counts the affinity only, so it may have more threads than a container's share of
    the processors.

    Args:
      groups: where the files of the process's control group are, of version 2 or 1.
    """
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = (groups / "cpu.max").read_text(encoding="utf-8").split()
        return _limited(processors, float(quota), float(period))
    with contextlib.suppress(OSError, ValueError):
        quota, period = (
            (groups / "cpu" / name).read_text(encoding="utf-8")
            for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
        return _limited(processors, float(quota), float(period))
    return processors


def _limited(processors: int, quota: float, period: float) -> int:
    """At most as many processors as the quota of time in a period fills; none: -1."""
    if quota <= 0 or period <= 0:
        return processors
    return max(1, min(processors, math.ceil(quota / period)))
