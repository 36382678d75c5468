# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration, read once from the environment (or from files named by ``<NAME>_FILE``) into typed settings.

Each kind of process gets the settings it uses and no more: the web processes never see the access token, the worker never
sees the app secret. A missing or weak secret stops the start with the variable's name; values are never printed.
"""

import os
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from whats_agent import heartbeat, masking
from whats_agent.addresses import Network, networks
from whats_agent.errors import SettingsError

MIN_SECRET_LENGTH = 16
MIN_DISTINCT_CHARACTERS = 6
_PLACEHOLDERS = (
    "changeme",
    "change_me",
    "change-me",
    "password",
    "secret",
    "example",
    "placeholder",
    "your_",
    "your-",
    "xxxx",
)


def _strong(value: SecretStr) -> SecretStr:
    """Refuse secrets nobody can have meant: short, of few characters, or left as a template had them."""
    text = value.get_secret_value()
    if len(text) < MIN_SECRET_LENGTH:
        raise ValueError(f"is too short, at least {MIN_SECRET_LENGTH} characters are needed")
    if len(set(text)) < MIN_DISTINCT_CHARACTERS:
        raise ValueError("repeats too few characters to be a secret")
    if text.lower().startswith(_PLACEHOLDERS):
        raise ValueError("is still a placeholder")
    return value


Secret = Annotated[SecretStr, AfterValidator(_strong)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s]+$"), AfterValidator(lambda value: value.rstrip("/"))]


class CommonSettings(BaseSettings):
    """What every process of the agent needs."""

    model_config = SettingsConfigDict(
        case_sensitive=False, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="from `DEBUG` to `CRITICAL`"
    )
    log_dir: Path = Field(default=Path("/var/log/whats_agent"), description="where the log files go")
    message_log_dir: Path = Field(
        default=Path(heartbeat.DIRECTORY),
        description="the message log, and small files that app and worker share",
    )

    @model_validator(mode="after")
    def _tell_the_mask(self) -> Self:
        masking.know_secrets(
            value.get_secret_value() for _, value in self if isinstance(value, SecretStr) and value.get_secret_value()
        )
        return self


class DatabaseSettings(CommonSettings):
    """PostgreSQL, and Redis for what may vanish."""

    db_host: str = Field(default="postgres", description="PostgreSQL")
    db_port: int = Field(default=5432, ge=1, le=65535, description="its port")
    db_name: str = Field(default="whats_agent", description="its database")
    db_user: str = Field(default="whats_agent", description="its user")
    db_password: Secret = Field(description="the user's password")
    db_connect_timeout: int = Field(default=3, ge=1, le=60, description="seconds")
    redis_url: str = Field(
        default="redis://redis:6379/0", pattern=r"^rediss?://[^\s]+$", description="without password"
    )
    redis_password: Secret | None = Field(default=None, description="Redis' password")
    handover_hours: float = Field(
        default=12.0, gt=0, description="a person keeps a conversation this long after the last sign"
    )
    phone_number_id: str = Field(pattern=r"^\d{5,20}$", description="Meta's id of the business number that answers")

    def conninfo(self) -> dict[str, str | int]:
        """Keyword arguments for ``psycopg.connect``."""
        return {
            "host": self.db_host,
            "port": self.db_port,
            "dbname": self.db_name,
            "user": self.db_user,
            "password": self.db_password.get_secret_value(),
            "connect_timeout": self.db_connect_timeout,
            # A server that vanishes without a word is noticed within about 15 s.
            "keepalives_idle": 5,
            "keepalives_interval": 3,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
        }


class WebSettings(DatabaseSettings):
    """The processes that accept webhooks and show the views."""

    meta_verify_token: Secret = Field(description="what Meta sends in the handshake")
    meta_app_secret: Secret = Field(description="signs the deliveries")
    webhook_max_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, description="larger bodies are refused with 413")
    openai_input_price: float = Field(default=0.15, ge=0, description="dollars per million tokens shown to the model")
    openai_output_price: float = Field(default=0.60, ge=0, description="dollars per million tokens it wrote")
    trusted_proxies: str = Field(default="", description="comma-separated networks whose X-Forwarded-For is believed")
    view_networks: str = Field(
        default="127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16",
        description="comma-separated networks that may see metrics and alerts",
    )
    certificate_address: str = Field(
        default="nginx:8443", description="host:port whose certificate is watched; empty for none"
    )
    backup_status_file: Path | None = Field(default=None, description="default: status/backup.json under LOG_DIR")
    slow_request_seconds: float = Field(default=1.0, gt=0, description="slower requests get a line in performance.log")
    alert_round_seconds: float = Field(
        default=15.0,
        ge=0.5,
        le=60,
        description="how often the alerts are evaluated; raised after two rounds, cleared after four",
    )
    worker_stale_seconds: float = Field(default=30.0, gt=0, description="a heartbeat older than this is reported")

    @field_validator("trusted_proxies", "view_networks")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        networks(value)
        return value

    @field_validator("certificate_address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"[^\s:]+:\d{1,5}", value):
            raise ValueError("must be host:port")
        return value

    def trusted_proxy_list(self) -> tuple[Network, ...]:
        """``TRUSTED_PROXIES`` as networks."""
        return networks(self.trusted_proxies)

    def view_network_list(self) -> tuple[Network, ...]:
        """``VIEW_NETWORKS`` as networks."""
        return networks(self.view_networks)

    def backup_status(self) -> Path:
        """The file in which the backup's timer tells when the last proven backup was made."""
        return self.backup_status_file or self.log_dir / "status" / "backup.json"


class WorkerSettings(DatabaseSettings):
    """The process that projects the log, asks OpenAI and sends."""

    meta_access_token: Secret = Field(description="for the Graph API")
    graph_base_url: Url = Field(default="https://graph.facebook.com", description="the Graph API, or its stand-in")
    graph_version: str = Field(
        default="v26.0", pattern=r"^v\d{1,3}\.\d$", description="of the Graph API; an alert warns before it ends"
    )
    graph_version_expires: date | None = Field(
        default=None, description="the day Meta announced, when it is another than we know"
    )
    graph_timeout: float = Field(default=15.0, gt=0, le=60, description="seconds")

    openai_api_key: Secret = Field(description="for OpenAI")
    openai_base_url: Url = Field(default="https://api.openai.com/v1", description="of OpenAI, or its stand-in")
    openai_model: str = Field(default="gpt-4o-mini", description="asked for answers")
    openai_timeout: float = Field(default=25.0, gt=0, le=120, description="seconds for one try")
    openai_max_retries: int = Field(default=2, ge=0, le=5, description="after the first try")
    openai_max_tokens: int = Field(default=800, ge=16, le=4096, description="of an answer")
    breaker_failures: int = Field(default=5, ge=1, description="failures in a row that open the circuit breaker")
    breaker_open_seconds: float = Field(default=30.0, gt=0, description="how long OpenAI is left alone then")

    system_prompt: str = Field(
        default=(
            "Você é o assistente virtual da empresa no WhatsApp. Responda de forma breve, cordial e correta, no idioma do cliente. "
            "Se não souber, diga que vai encaminhar a uma pessoa da equipe."
        ),
        description="what the model is told about its task",
    )
    business_scope: str = Field(default="", description="what the business does and does not; added to the prompt")
    fallback_answer: str = Field(
        default=("Desculpe, não consigo responder agora. Sua mensagem foi recebida e retornaremos assim que possível."),
        description="goes out when OpenAI gives none",
    )
    handover_phrases: str = Field(
        default="atendente, falar com uma pessoa, falar com alguém, falar com humano, atendimento humano",
        description="comma-separated; a message with one of them hands the conversation to a person",
    )
    handover_answer: str = Field(
        default="Certo! Vou chamar uma pessoa da equipe para continuar com você por aqui.",
        description="tells the user that a person will answer",
    )
    handback_phrases: str = Field(default="voltar ao assistente, falar com o assistente", description="comma-separated")
    handback_answer: str = Field(
        default="Pronto, sou o assistente virtual de novo. Como posso ajudar?",
        description="tells the user that the assistant is back",
    )
    polite_answer: str = Field(
        default=(
            "Obrigado pela mensagem! Ainda não consigo ler este tipo de conteúdo por aqui. "
            "Pode escrever em texto, por favor?"
        ),
        description="goes out for what cannot be read",
    )
    context_turns: int = Field(
        default=10, ge=0, le=50, description="earlier messages of the conversation shown to the model"
    )

    send_rate_per_second: float = Field(default=80.0, gt=0, le=1000, description="Meta's limit for the business number")
    send_rate_burst: int = Field(default=20, ge=1, description="sends of the number that may go at once")
    pair_rate_seconds: float = Field(
        default=6.0, gt=0, description="Meta's limit per user: one message per so many seconds…"
    )
    pair_rate_burst: int = Field(default=45, ge=1, description="…of which so many may go at once")
    mark_as_read: bool = Field(default=True, description="show the user that the message was read, as best effort")
    typing_indicator: bool = Field(default=True, description="show that an answer is being written, as best effort")

    media_fetch: bool = Field(
        default=False, description="fetch what users send and keep it in `media/` beside the message log"
    )
    media_origins: str = Field(
        default="https://lookaside.fbsbx.com",
        description="comma-separated; media is fetched from these and the token shown to no other",
    )
    media_types: str = Field(
        default=(
            "image/jpeg,image/png,image/webp,audio/aac,audio/amr,audio/mp4,audio/mpeg,audio/ogg,video/mp4,video/3gpp,"
            "application/pdf,text/plain,application/msword,application/vnd.ms-excel,application/vnd.ms-powerpoint,"
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document,"
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet,"
            "application/vnd.openxmlformats-officedocument.presentationml.presentation"
        ),
        description="comma-separated MIME types that are fetched",
    )
    media_max_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1024, le=100 * 1024 * 1024, description="larger files are not fetched"
    )
    media_quota_bytes: int = Field(
        default=1024 * 1024 * 1024, ge=1024 * 1024, description="of all files together; beyond it the oldest go"
    )
    media_seconds: float = Field(default=60.0, gt=0, le=600, description="within which a file must be whole")

    sender_threads: int = Field(default=16, ge=1, le=64, description="answers in the making at the same time")
    sender_lease_seconds: float = Field(
        default=30.0,
        ge=3,
        description="a preparation whose worker died is taken over after this; living workers renew it",
    )
    send_echo_wait_seconds: float = Field(
        default=120.0, gt=0, description="a send of unknown fate waits this long for its status before it is repeated"
    )
    send_stop_seconds: float = Field(default=30.0, gt=0, description="pause before a stopped sender tries again")
    answer_window_seconds: float = Field(default=24 * 3600.0, gt=0, description="Meta's window for free-form answers")
    projection_batch: int = Field(default=500, ge=1, le=5000, description="records of the log in one transaction")
    poll_seconds: float = Field(default=0.1, gt=0, le=5, description="how often an idle worker looks for new records")

    @field_validator("media_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        for origin in value.split(","):
            if not re.fullmatch(r"https?://[a-z0-9_.-]+(:\d{1,5})?", origin.strip()):
                raise ValueError("must be scheme://host[:port], comma-separated, in lower case")
        return value

    def media_origin_set(self) -> frozenset[str]:
        """``MEDIA_ORIGINS`` as a set."""
        return frozenset(origin.strip() for origin in self.media_origins.split(","))

    def media_type_set(self) -> frozenset[str]:
        """``MEDIA_TYPES`` as a set."""
        return frozenset(kind.strip().lower() for kind in self.media_types.split(",") if kind.strip())

    @model_validator(mode="after")
    def _echo_outlasts_the_send(self) -> Self:
        if self.send_echo_wait_seconds < self.graph_timeout * 2:
            raise ValueError(
                "SEND_ECHO_WAIT_SECONDS must be at least twice GRAPH_TIMEOUT, or a send could be repeated while it runs"
            )
        return self


SettingsKind = TypeVar("SettingsKind", bound=CommonSettings)


def load(kind: type[SettingsKind]) -> SettingsKind:
    """Read settings of ``kind`` from the environment. Raises SettingsError with one line per bad variable, without values."""
    from_files: dict[str, str] = {}
    for name in kind.model_fields:
        path = os.environ.get(f"{name.upper()}_FILE")
        if path and not os.environ.get(name.upper()):
            try:
                from_files[name] = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"{name.upper()}_FILE names a file that cannot be read: {error}") from None
    try:
        return kind(**from_files)  # type: ignore[arg-type]  # pydantic converts the text as it does the environment's
    except ValidationError as error:
        lines = [
            _explain(problem["loc"], problem["type"], problem["msg"]) for problem in error.errors(include_input=False)
        ]
        raise SettingsError("\n".join(lines)) from None


def _explain(location: tuple[int | str, ...], kind: str, message: str) -> str:
    name = str(location[0]).upper() if location else ""
    if kind == "missing":
        return f"{name} is not set"
    return f"{name} {message.removeprefix('Value error, ')}".strip()
