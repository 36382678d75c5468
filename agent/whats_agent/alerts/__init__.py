# SPDX-License-Identifier: GPL-3.0-or-later
"""Service levels watched by the agent itself: raised and cleared alerts, each with the runbook that mends it."""
