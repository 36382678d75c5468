# SPDX-License-Identifier: GPL-3.0-or-later
"""The append-only, fsynced log of every webhook body that was acknowledged and of every send that was attempted."""

from whats_agent.message_log.log import MessageLog
from whats_agent.message_log.records import Kind, Record

__all__ = ["Kind", "MessageLog", "Record"]
