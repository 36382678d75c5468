# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL: connections and migrations."""
