# SPDX-License-Identifier: GPL-3.0-or-later
"""Webhook bodies of our own making, and settings that would pass."""

import json
import time
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures"

ENVIRONMENT = {
    "DB_PASSWORD": "db-3f9a7c51e0b2d846",
    "PHONE_NUMBER_ID": "555000111222333",
    "META_VERIFY_TOKEN": "vt-81c5d20fa47be936",
    "META_APP_SECRET": "as-d1b7f3a95c08e264",
    "META_ACCESS_TOKEN": "at-4e60c9b81fd7a352",
    "OPENAI_API_KEY": "ok-a72e5d90b3f1c846",
}


def webhook(*messages: dict[str, Any], **more: Any) -> bytes:
    """A body with these messages from one user."""
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "551130000000", "phone_number_id": ENVIRONMENT["PHONE_NUMBER_ID"]},
        "contacts": [{"profile": {"name": "Ana"}, "wa_id": "5511988887777"}],
        "messages": list(messages),
        **more,
    }
    entry = {"id": "900", "changes": [{"field": "messages", "value": value}]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


def text_message(text: str = "Oi", wamid: str = "wamid.T1", **more: Any) -> dict[str, Any]:
    """One text message, sent now."""
    return {
        "from": "5511988887777",
        "id": wamid,
        "timestamp": str(int(time.time())),
        "type": "text",
        "text": {"body": text},
        **more,
    }
