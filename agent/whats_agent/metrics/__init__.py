# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers that every process adds to and any process can show: counters and histograms in small shared files."""

from whats_agent.metrics.recorder import Recorder

__all__ = ["Recorder"]
