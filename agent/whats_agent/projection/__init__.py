# SPDX-License-Identifier: GPL-3.0-or-later
"""Message log -> PostgreSQL, in order, each batch in one transaction with the position it reached."""
