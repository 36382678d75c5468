# SPDX-License-Identifier: GPL-3.0-or-later
"""Accepting what Meta sends: signature over the raw bytes, the message log, 200."""
