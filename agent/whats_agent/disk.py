# SPDX-License-Identifier: GPL-3.0-or-later
"""How full a disk is, as ``df`` counts it."""

import os
from pathlib import Path


def free_share(path: Path) -> float:
    """What may still be written, of that and what is in use, 0 to 1: blocks kept back for root or by a quota count as neither.

    Raises OSError.
    """
    usage = os.statvfs(path)
    used = usage.f_blocks - usage.f_bfree
    return usage.f_bavail / (used + usage.f_bavail) if used + usage.f_bavail else 1.0
