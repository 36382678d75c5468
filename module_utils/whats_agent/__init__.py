# SPDX-License-Identifier: GPL-3.0-or-later
"""What the project's modules and the server's timers share.

Modules import it as `ansible.module_utils.whats_agent`; timers as `whats_agent_ops`. Inside the package imports are
therefore relative, and nothing but the standard library is imported at load time (`docker`, `psycopg` and `redis` are
imported where they are first used).
"""
