# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenAI behind one small interface, with a circuit breaker."""
