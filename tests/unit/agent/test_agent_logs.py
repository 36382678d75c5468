# SPDX-License-Identifier: GPL-3.0-or-later
"""Log files as the guide lays them out; nothing secret and no phone number in any of them."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from whats_agent import logs, masking
from whats_agent.logs import fields, quoted


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    logs.set_up(tmp_path, "INFO")
    yield tmp_path
    for name in (None, logs.SECURITY, logs.PERFORMANCE, logs.BUSINESS, logs.ALERTS):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True
    root.handlers[:] = handlers
    root.setLevel(level)
    masking.know_secrets([])


def read(directory: Path, name: str) -> str:
    """A log file's text."""
    return (directory / name).read_text(encoding="utf-8")


def test_each_event_lands_where_the_guide_looks_for_it(directory: Path) -> None:
    logging.getLogger("whats_agent.sender").info(fields(event="ordinary"))
    logging.getLogger("whats_agent.sender").error(fields(event="broken"))
    logging.getLogger(logs.SECURITY).warning(fields(event="refused"))
    logging.getLogger(logs.PERFORMANCE).info(fields(event="slow", took="1234ms"))
    logging.getLogger(logs.BUSINESS).info(fields(event="answered"))
    logging.getLogger(logs.ALERTS).critical(fields(event="alert_raised"))
    assert "event=ordinary" in read(directory, "app.log")
    assert [line.split("event=")[1] for line in read(directory, "errors.log").splitlines()] == [
        "broken",
        "alert_raised",
    ]
    assert "event=refused" in read(directory, "security.log")
    assert "took=1234ms" in read(directory, "performance.log")
    assert "took=1234ms" not in read(directory, "app.log")
    assert "event=answered" in read(directory, "business_metrics/business.log")
    assert "event=alert_raised" in read(directory, "alerts/alerts.log")


def test_a_line_is_one_line_with_time_level_and_correlation_id(directory: Path) -> None:
    token = logs.correlation_id.set("c-1")
    try:
        logging.getLogger("whats_agent.x").error(fields(event="odd", text='two\nlines "quoted"'))
    finally:
        logs.correlation_id.reset(token)
    lines = read(directory, "app.log").splitlines()
    assert len(lines) == 1
    pattern = r'\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z ERROR whats_agent\.x pid=\d+ cid=c-1 event=odd text="two\\nlines \\"quoted\\""'
    assert re.fullmatch(pattern, lines[0])


def test_files_are_reopened_after_rotation(directory: Path) -> None:
    logger = logging.getLogger("whats_agent.x")
    logger.info("before")
    (directory / "app.log").rename(directory / "app.log.1")
    logger.info("after")
    assert "before" in read(directory, "app.log.1")
    assert "after" in read(directory, "app.log")


def test_a_log_that_cannot_be_written_stops_nothing(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("whats_agent.x")
    (directory / "app.log").unlink()
    (directory / "app.log").mkdir()
    logger.info("still heard")
    assert "still heard" in capsys.readouterr().err


def test_a_line_that_cannot_be_made_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The handler alone: pytest's own one raises for such a line.
    handler = logs.SteadyFileHandler(tmp_path / "app.log")
    for message, arguments in (("%d", ("no number",)), ("next", ())):
        handler.emit(logging.LogRecord("x", logging.INFO, __file__, 1, message, arguments, None))
    handler.close()
    assert read(tmp_path, "app.log") == "next\n"
    assert "no number" in capsys.readouterr().err


def test_a_directory_that_cannot_be_made_stops_nothing(tmp_path: Path, directory: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    logs.set_up(tmp_path / "file" / "logs", "INFO")
    logging.getLogger("whats_agent.x").info("still running")


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("to=5511988887777 sent", "5511988887777"),
        ("call +5511988887777 now", "5511988887777"),
        ('{"wa_id": "5511988887777"}', "5511988887777"),
        ('reason="Recipient 5511988887777 not in list"', "5511988887777"),
        ("token EAAGm0PX4ZCpsBAKZCZBZCexampleZD refused", "EAAGm0PX4ZCpsBAKZCZBZCexampleZD"),
        ("key sk-proj-abcdefgh12345678 refused", "sk-proj-abcdefgh12345678"),
        ("Authorization: Bearer abc.def-ghi_123456", "abc.def-ghi_123456"),
        ("https://graph/x?access_token=abcdef123&y=1", "abcdef123"),
        ('{"password": "hunter2hunter2"}', "hunter2hunter2"),
    ],
)
def test_numbers_and_tokens_are_masked(text: str, hidden: str) -> None:
    masked = masking.mask_text(text)
    assert hidden not in masked
    assert masked != text


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24T13:41:33.211Z INFO pid=30735 took=1234ms",
        "record=123456789012 position=98765",
        "cid=05fa5b9d-3f1b-561f-b8f2-94e4955b4885",
        "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQTRBNjU5",
    ],
)
def test_what_is_no_number_stays_readable(text: str) -> None:
    assert masking.mask_text(text) == text


def test_known_secrets_are_masked_wherever_they_stand(directory: Path) -> None:
    masking.know_secrets(["p4ssw0rd-of-the-database"])
    try:
        int("p4ssw0rd-of-the-database")
    except ValueError:
        logging.getLogger("whats_agent.x").exception("event=failed")
    assert "p4ssw0rd" not in read(directory, "app.log")
    assert "[secret]" in read(directory, "app.log")


def test_mask_number() -> None:
    assert masking.mask_number("5511988887777") == "5511*******77"
    assert masking.mask_number(None) == masking.mask_number("123") == "****"


def test_quoting() -> None:
    assert quoted("word") == "word"
    assert quoted("") == '""'
    assert quoted("a=b") == '"a=b"'
