# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of `oncall`, one file per concern."""
