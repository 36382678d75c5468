# SPDX-License-Identifier: GPL-3.0-or-later
"""What it was measured on: every page with numbers says so."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def described() -> str:
    """Cores, processor, memory and Python, in a few words."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Python {platform.python_version()}"
