# SPDX-License-Identifier: GPL-3.0-or-later
"""``GET /webhook``: Meta's handshake when the callback URL is registered."""

import logging
import re
from collections.abc import Sequence

from flask import Blueprint, Response, request

from whats_agent import logs
from whats_agent.addresses import Network, client_address
from whats_agent.webhook.signature import same_token

_security = logging.getLogger(logs.SECURITY)
# Meta's challenges are numbers; anything markup could be made of is refused, since it would be echoed.
_CHALLENGE = re.compile(r"[A-Za-z0-9_.-]{1,256}")


def blueprint(verify_token: str, trusted_proxies: Sequence[Network] = ()) -> Blueprint:
    """The route, bound to our verify token."""
    routes = Blueprint("webhook", __name__)

    @routes.get("/webhook")
    def handshake() -> Response:
        mode = request.args.get("hub.mode", "")
        token = request.args.get("hub.verify_token", "")
        challenge = request.args.get("hub.challenge", "")
        if not same_token(verify_token, token):
            _security.warning(
                logs.fields(
                    event="handshake_refused",
                    status=403,
                    reason="wrong_token",
                    address=client_address(request.environ, trusted_proxies),
                    outcome="forbidden",
                )
            )
            return Response("wrong verify token", status=403, mimetype="text/plain")
        if mode != "subscribe" or not _CHALLENGE.fullmatch(challenge):
            return Response("hub.mode or hub.challenge missing or wrong", status=400, mimetype="text/plain")
        return Response(challenge, status=200, mimetype="text/plain")

    return routes
