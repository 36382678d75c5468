# SPDX-License-Identifier: GPL-3.0-or-later
"""The yardstick: a Flask endpoint that does nothing at all with what it is sent."""

from flask import Flask

app = Flask(__name__)


@app.post("/webhook")
def webhook() -> str:
    return ""
