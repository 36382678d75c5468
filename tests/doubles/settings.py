# SPDX-License-Identifier: GPL-3.0-or-later
"""What the environment tells a double."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


class MissingSettingError(RuntimeError):
    """A variable the double cannot run without is absent or empty."""


def _required(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise MissingSettingError(f"{name} must be set for this double")
    return value


@dataclass(frozen=True)
class GraphSettings:
    """``webhook_url`` empty means that no status is delivered; ``phone_number_id`` empty accepts any id."""

    app_secret: str
    access_token: str
    webhook_url: str = ""
    webhook_ca_file: str = ""
    phone_number_id: str = ""
    state_dir: Path = Path("/var/lib/doubles")
    answer_delay_s: float = 0.0

    @classmethod
    def from_environment(cls) -> GraphSettings:
        return cls(
            app_secret=_required("META_APP_SECRET"),
            access_token=_required("META_ACCESS_TOKEN"),
            webhook_url=os.environ.get("WEBHOOK_URL", ""),
            webhook_ca_file=os.environ.get("WEBHOOK_CA_FILE", ""),
            phone_number_id=os.environ.get("PHONE_NUMBER_ID", ""),
            state_dir=Path(os.environ.get("DOUBLE_STATE_DIR", "/var/lib/doubles")),
            answer_delay_s=float(os.environ.get("DOUBLE_ANSWER_DELAY_S", "0")),
        )


@dataclass(frozen=True)
class OpenAISettings:
    """``api_key`` empty accepts any key."""

    api_key: str = ""
    answer_delay_s: float = 0.0

    @classmethod
    def from_environment(cls) -> OpenAISettings:
        return cls(
            api_key=os.environ.get("OPENAI_API_KEY", ""),
            answer_delay_s=float(os.environ.get("DOUBLE_ANSWER_DELAY_S", "0")),
        )
