# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue of answers in PostgreSQL.

A row's life: ``queued`` -> ``leased`` (an answer is being made) -> ``sending`` (attempt logged, handed to the Graph API) ->
``sent``. A send without a clear answer is ``unknown`` until its status arrives or its wait is over. ``failed``, ``expired`` and
``cancelled`` end it too. Only the oldest open row of a conversation can be taken, so answers keep the order of the questions.
"""
