# SPDX-License-Identifier: GPL-3.0-or-later
"""Meta's shapes: reading a webhook body, and what each message type does."""
