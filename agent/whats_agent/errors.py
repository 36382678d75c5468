# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's own errors. Each says what failed and with which value; none carries a secret."""


class AgentError(Exception):
    """Base of every error that the agent raises on purpose."""


class SettingsError(AgentError):
    """The environment lacks a variable or holds an unusable one; the message names it, never its value."""


class MessageLogError(AgentError):
    """The message log could not be opened, read or written (disk full, damaged file, lock not obtained)."""


class UnreadableItemError(AgentError):
    """An item of a webhook body does not have the shape it must have to be stored as what it claims to be."""


class GraphError(AgentError):
    """A send or a call to the Graph API did not succeed; see ``graph.outcome`` for what it means."""


class AnswerError(AgentError):
    """No answer could be had from OpenAI within the time and the tries allowed."""
