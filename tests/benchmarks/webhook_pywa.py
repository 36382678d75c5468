# SPDX-License-Identifier: GPL-3.0-or-later
"""pywa's Flask server as its documentation sets it up: signature checked, a handler that does nothing. Not durable."""

import os
from typing import Any

from flask import Flask
from pywa import WhatsApp  # type: ignore[import-not-found]  # installed for the benchmark only

app = Flask(__name__)
client = WhatsApp(
    phone_id=os.environ["PHONE_NUMBER_ID"],
    token=os.environ["META_ACCESS_TOKEN"],
    server=app,
    webhook_endpoint="/webhook",
    verify_token=os.environ["META_VERIFY_TOKEN"],
    app_secret=os.environ["META_APP_SECRET"],
    validate_updates=True,
)


def handle(_client: WhatsApp, _message: Any) -> None:
    """Told of each message, does nothing with it."""


client.on_message(handle)
