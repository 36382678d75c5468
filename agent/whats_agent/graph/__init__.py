# SPDX-License-Identifier: GPL-3.0-or-later
"""Meta's Graph API behind one small interface."""
