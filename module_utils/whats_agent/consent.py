# SPDX-License-Identifier: GPL-3.0-or-later
"""Consent to a destructive step.

A hash over what exactly is consented to, which expires and stops to fit when that moves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .errors import Text

LIFETIME = 15 * 60  # seconds between reading a plan and confirming it
_CLOCK_SLACK = 60
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_DIGEST_LENGTH = 12


@dataclass(frozen=True)
class Subject:
    """What a consent stands for: destructive `remedies` for a cause on a host, while its `state` has this digest."""

    host: str
    component: str
    cause: str
    remedies: tuple[str, ...]
    state: str

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Subject:
        """Return the subject that `as_dict` made, read back from a journal."""
        return cls(**{**value, "remedies": tuple(value["remedies"])})

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)


def state_digest(state: Mapping[str, Any]) -> str:
    """Return a short digest of the part of the state that a consent depends on."""
    canonical = json.dumps(state, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_LENGTH]


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = _BASE36[rest] + digits
    return digits or "0"


def consent_hash(subject: Subject, issued_at: int) -> str:
    """Return the hash an operator repeats as `-e confirm=`: when it was issued, and a digest of what it stands for."""
    content = json.dumps([issued_at, subject.as_dict()], sort_keys=True, ensure_ascii=False)
    return f"{_base36(issued_at)}-{hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_LENGTH]}"


def refuse_consent(given: str, subject: Subject, *, now: int, issued: Subject | None) -> Text | None:
    """Return why a consent does not fit, or None when it does.

    `now` is seconds since the epoch; `issued` is what was recorded when the hash was printed, if that is known here.
    """
    stamp, separator, digest = given.partition("-")
    if not separator or len(digest) != _DIGEST_LENGTH or not stamp or any(c not in _BASE36 for c in stamp):
        return {
            "en": f"confirm={given} is no confirmation hash; copy the one the plan prints",
            "pt": f"confirm={given} não é um hash de confirmação; copie o que o plano mostra",
        }
    issued_at = int(stamp, 36)
    if consent_hash(subject, issued_at) != given:
        return _explain_mismatch(given, subject, issued)
    overdue = now - issued_at - LIFETIME
    if overdue > 0:
        return {
            "en": f"confirm={given} expired {overdue} s ago (it is good for {LIFETIME // 60} min); read the plan again",
            "pt": f"confirm={given} venceu há {overdue} s (vale por {LIFETIME // 60} min); leia o plano de novo",
        }
    if issued_at - now > _CLOCK_SLACK:
        return {
            "en": f"confirm={given} is from the future: this host's clock was set back; read the plan again",
            "pt": f"confirm={given} é do futuro: o relógio deste servidor foi atrasado; leia o plano de novo",
        }
    return None


def _explain_mismatch(given: str, subject: Subject, issued: Subject | None) -> Text:
    """Say which part of what was consented to is not what is planned now."""
    if issued is None:
        return {
            "en": f"confirm={given} was not issued by a plan on this host ({subject.host}); read the plan again",
            "pt": f"confirm={given} não foi emitido por um plano neste servidor ({subject.host}); leia o plano de novo",
        }
    if issued.host != subject.host:
        en, pt = f"for the host {issued.host}, not {subject.host}", f"para o servidor {issued.host}, não {subject.host}"
    elif issued.component != subject.component:
        en, pt = f"for {issued.component}, not {subject.component}", f"para {issued.component}, não {subject.component}"
    elif issued.cause != subject.cause:
        en = f"for the cause {issued.cause}; the cause is now {subject.cause}"
        pt = f"para a causa {issued.cause}; a causa agora é {subject.cause}"
    elif issued.remedies != subject.remedies:
        en, pt = "for other steps than those planned now", "para outros passos, não os planejados agora"
    else:
        en = "for a state that has moved since (backup, volume or data)"
        pt = "para um estado que mudou desde então (backup, volume ou dados)"
    return {
        "en": f"confirm={given} was given {en}; read the plan again",
        "pt": f"confirm={given} foi dado {pt}; leia o plano de novo",
    }
