# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for the Graph API and OpenAI, so that the agent can be run and broken without internet.

They speak on the wire as the real services do; what a test may ask of them lies under ``/_double/``
(docs/interfaces.md, "The doubles' control interface").
"""
