# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Cloud API makes of a request to ``/messages``: pure functions over its body."""

from __future__ import annotations

import base64
import secrets
from typing import Any

from . import graph_errors
from .graph_errors import RejectedError

TEXT_LIMIT = 4096
CALLBACK_DATA_LIMIT = 512
MEDIA_TYPES = frozenset({"image", "audio", "video", "document", "sticker"})
SENDABLE_TYPES = MEDIA_TYPES | {"text", "template", "interactive", "location", "contacts", "reaction"}


def _refuse(details: str) -> RejectedError:
    return RejectedError(graph_errors.bad_parameter(details))


def is_read_mark(body: dict[str, Any]) -> bool:
    """Whether the request marks a message as read (and maybe shows "typing…"), which sends nothing."""
    return "status" in body


def check_read_mark(body: dict[str, Any]) -> None:
    """Raise RejectedError unless the body is a well-formed read mark."""
    if body.get("messaging_product") != "whatsapp":
        raise _refuse("The parameter messaging_product is required.")
    if body["status"] != "read":
        raise _refuse("Param status must be one of {READ}.")
    if not isinstance(body.get("message_id"), str) or not body["message_id"]:
        raise _refuse("The parameter message_id is required.")
    typing = body.get("typing_indicator")
    if typing is not None and (not isinstance(typing, dict) or typing.get("type") != "text"):
        raise _refuse("Param typing_indicator['type'] must be one of {TEXT}.")


def check_send(body: dict[str, Any]) -> None:
    """Raise RejectedError unless Meta would take the body as a message."""
    if body.get("messaging_product") != "whatsapp":
        raise _refuse("The parameter messaging_product is required.")
    if not _text(body.get("to")) and not _text(body.get("recipient")):
        raise _refuse("The parameter to is required.")
    kind = body.get("type", "text")
    if kind not in SENDABLE_TYPES:
        raise _refuse(f"Param type must be one of {{{', '.join(sorted(SENDABLE_TYPES)).upper()}}}.")
    content = body.get(kind)
    if not content:
        raise _refuse(f"The parameter {kind} is required.")
    if kind == "text":
        text = content.get("body") if isinstance(content, dict) else None
        if not _text(text):
            raise _refuse("The parameter text['body'] is required.")
        if len(str(text)) > TEXT_LIMIT:
            raise _refuse(f"Param text['body'] must be at most {TEXT_LIMIT} characters long.")
    callback_data = body.get("biz_opaque_callback_data")
    if callback_data is not None and (not isinstance(callback_data, str) or len(callback_data) > CALLBACK_DATA_LIMIT):
        raise _refuse(f"Param biz_opaque_callback_data must be at most {CALLBACK_DATA_LIMIT} characters long.")


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def new_wamid() -> str:
    return "wamid.HBg" + base64.b64encode(secrets.token_bytes(33)).decode()


def accepted(body: dict[str, Any], wamid: str) -> dict[str, Any]:
    """The answer to an accepted send; a phone number wins over a business-scoped user id, as Meta has it."""
    if _text(body.get("to")):
        contact = {"input": body["to"], "wa_id": body["to"].lstrip("+")}
    else:
        contact = {"input": body["recipient"], "user_id": body["recipient"]}
    return {"messaging_product": "whatsapp", "contacts": [contact], "messages": [{"id": wamid}]}


def send_record(body: dict[str, Any], wamid: str, phone_number_id: str, at: str) -> dict[str, Any]:
    """One entry of ``GET /_double/sends``."""
    kind = body.get("type", "text")
    content = body.get(kind)
    return {
        "wamid": wamid,
        "to": body.get("to") or body.get("recipient"),
        "text": content.get("body") if kind == "text" and isinstance(content, dict) else None,
        "biz_opaque_callback_data": body.get("biz_opaque_callback_data"),
        "type": kind,
        "at": at,
        "phone_number_id": phone_number_id,
        "payload": body,
    }
