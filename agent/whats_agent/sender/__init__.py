# SPDX-License-Identifier: GPL-3.0-or-later
"""From the outbox to the user: an answer made, stored, logged, sent."""
