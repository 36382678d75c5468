# SPDX-License-Identifier: GPL-3.0-or-later
"""A WhatsApp agent that never loses a webhook and answers each message exactly once.

Where to find what:

- ``webhook``        accepts what Meta sends: signature, handshake, the 200 after the fsync
- ``message_log``    the append-only log every accepted body and every send goes through
- ``whatsapp``       Meta's shapes: parsing, and the table that says what each message type does
- ``projection``     message log -> PostgreSQL
- ``outbox``         the queue of answers in PostgreSQL
- ``sender``         takes from the outbox, asks OpenAI, sends through the Graph API
- ``openai_client``, ``graph``  the two providers, each behind one small interface
- ``views``          health, metrics, alerts
- ``database``       connections and migrations
"""

__version__ = "0.1.0"
