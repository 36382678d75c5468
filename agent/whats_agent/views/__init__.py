# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent shows about itself."""
