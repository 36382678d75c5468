# SPDX-License-Identifier: GPL-3.0-or-later
"""A missing or weak secret stops the start with the variable's name, and its value is never shown."""

from pathlib import Path

import pytest

from whats_agent.errors import SettingsError
from whats_agent.settings import CommonSettings, WebSettings, WorkerSettings, load
from whats_agent.settings_page import page

SECRETS = {"META_VERIFY_TOKEN": WebSettings, "META_APP_SECRET": WebSettings, "DB_PASSWORD": WebSettings} | {
    "META_ACCESS_TOKEN": WorkerSettings,
    "OPENAI_API_KEY": WorkerSettings,
}


@pytest.mark.usefixtures("environment")
def test_the_minimum_is_enough() -> None:
    assert load(WebSettings).webhook_max_bytes == 4 * 1024 * 1024
    assert load(WorkerSettings).graph_version.startswith("v")
    assert load(CommonSettings).log_level == "INFO"


@pytest.mark.parametrize(("name", "kind"), SECRETS.items())
@pytest.mark.usefixtures("environment")
def test_missing_secret_is_named(name: str, kind: type[CommonSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
        with pytest.raises(SettingsError, match=f"^{name} is not set$"):
            load(kind)


@pytest.mark.parametrize(("name", "kind"), SECRETS.items())
@pytest.mark.parametrize(
    "value", ["short-1a2b3c", "aaaaaaaaaaaaaaaaaaaaaaaa", "changeme-1234567890", "your_token_goes_here_12"]
)
@pytest.mark.usefixtures("environment")
def test_weak_secret_is_named_and_not_shown(
    name: str, kind: type[CommonSettings], value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as failure:
        load(kind)
    assert str(failure.value).startswith(f"{name} ")
    assert value not in str(failure.value)
    assert len(str(failure.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("PHONE_NUMBER_ID", "+55 11 9999", WebSettings),
        ("REDIS_URL", "http://redis", WebSettings),
        ("DB_PORT", "70000", WebSettings),
        ("LOG_LEVEL", "LOUD", CommonSettings),
        ("GRAPH_BASE_URL", "graph.example", WorkerSettings),
        ("GRAPH_VERSION", "26", WorkerSettings),
        ("OPENAI_TIMEOUT", "soon", WorkerSettings),
        ("SENDER_THREADS", "0", WorkerSettings),
        ("SEND_ECHO_WAIT_SECONDS", "5", WorkerSettings),
    ],
)
@pytest.mark.usefixtures("environment")
def test_bad_values_are_named(
    name: str, value: str, kind: type[CommonSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load(kind)


def test_every_problem_is_told_at_once(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("META_APP_SECRET", "META_VERIFY_TOKEN", "PHONE_NUMBER_ID"):
        monkeypatch.delenv(name)
    with pytest.raises(SettingsError) as failure:
        load(WebSettings)
    assert len(str(failure.value).splitlines()) == 3


def test_web_processes_need_no_sending_secrets(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("META_ACCESS_TOKEN")
    monkeypatch.delenv("OPENAI_API_KEY")
    load(WebSettings)
    monkeypatch.delenv("META_APP_SECRET")
    with pytest.raises(SettingsError):
        load(WebSettings)


@pytest.mark.usefixtures("environment")
def test_a_secret_can_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_text("file-5d0c93e8a7b1f264\n", encoding="utf-8")
    monkeypatch.delenv("META_ACCESS_TOKEN")
    monkeypatch.setenv("META_ACCESS_TOKEN_FILE", str(path))
    assert load(WorkerSettings).meta_access_token.get_secret_value() == "file-5d0c93e8a7b1f264"
    monkeypatch.setenv("META_ACCESS_TOKEN_FILE", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match="META_ACCESS_TOKEN_FILE"):
        load(WorkerSettings)


@pytest.mark.usefixtures("environment")
def test_printing_settings_shows_no_secret(environment: dict[str, str]) -> None:
    shown = repr(load(WorkerSettings)) + str(load(WebSettings))
    for name in SECRETS:
        assert environment[name] not in shown


def test_the_operators_page_is_up_to_date() -> None:
    written = (Path(__file__).parents[3] / "docs" / "agent_settings.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m whats_agent.settings_page > docs/agent_settings.md"


@pytest.mark.parametrize(
    ("name", "value"),
    [("TRUSTED_PROXIES", "nginx"), ("VIEW_NETWORKS", "10.0.0.0/99"), ("CERTIFICATE_ADDRESS", "nginx")],
)
@pytest.mark.usefixtures("environment")
def test_networks_and_addresses_are_checked_at_the_start(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load(WebSettings)
