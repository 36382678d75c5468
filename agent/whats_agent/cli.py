# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: PLC0415
"""``whats-agent``: the commands of the image. JSON on stdout, errors on stderr and an exit code other than 0.

Each command imports what it needs when it runs: a health check every few seconds must not load OpenAI, SQLAlchemy and pydantic.
"""

import http.client
import json
import logging
import os
import sys
from pathlib import Path

import click

from whats_agent import __version__
from whats_agent.errors import AgentError, MessageLogError

KEEP_DAYS = 8.0
HEARTBEAT_LIMIT_SECONDS = 15.0
HEALTH_TIMEOUT_SECONDS = 4.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def commands() -> None:
    """A WhatsApp agent that never loses a webhook and answers each message exactly once."""


@commands.command()
def serve() -> None:
    """Serve the webhook and the views with gunicorn."""
    from whats_agent import logs
    from whats_agent.message_log import MessageLog
    from whats_agent.settings import WebSettings, load

    settings = load(WebSettings)
    logs.set_up(settings.log_dir, settings.log_level)
    try:
        MessageLog(settings.message_log_dir).check_tail()
    except MessageLogError as error:
        # Serve all the same: Meta gets 503 and delivers again, and the log is tried anew with each request.
        logging.getLogger("whats_agent.web").critical(logs.fields(event="message_log_not_usable", reason=error))
    os.execvp(sys.executable, [sys.executable, "-m", "gunicorn", "--config", "python:whats_agent.gunicorn_config"])  # noqa: S606 - becomes gunicorn


@commands.command()
def worker() -> None:
    """Project the message log into PostgreSQL, and send the answers."""
    from whats_agent import logs
    from whats_agent.settings import WorkerSettings, load
    from whats_agent.worker import Worker

    settings = load(WorkerSettings)
    logs.set_up(settings.log_dir, settings.log_level)
    sys.exit(Worker(settings).run())


@commands.command()
def migrate() -> None:
    """Bring the database's schema to this release."""
    from whats_agent import logs
    from whats_agent.database.migrate import upgrade
    from whats_agent.settings import DatabaseSettings, load

    settings = load(DatabaseSettings)
    logs.set_up(settings.log_dir, settings.log_level)
    upgrade(settings)


@commands.command("log-status")
def log_status() -> None:
    """Print the message log's first and last id, number of records and size."""
    from whats_agent.message_log import MessageLog
    from whats_agent.settings import CommonSettings, load

    print_json(MessageLog(load(CommonSettings).message_log_dir).status())


@commands.command("replay-status")
def replay_status() -> None:
    """Print how far PostgreSQL is behind the message log, and what the outbox holds."""
    from whats_agent.database.connection import connect
    from whats_agent.message_log import MessageLog
    from whats_agent.outbox import queue
    from whats_agent.settings import DatabaseSettings, load

    settings = load(DatabaseSettings)
    end = MessageLog(settings.message_log_dir).last_id()
    with connect(settings, "replay-status", statement_timeout="10s") as connection:
        row = connection.execute("select position from projection").fetchone()
        totals = queue.totals(connection)
    position = int(row[0]) if row else 0
    print_json({"log_last_id": end, "projected_id": position, "lag": max(end - position, 0), **totals})


@commands.command("log-export")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only records after this id.")
def log_export(after: int) -> None:
    """Write the message log to stdout, for a backup; tell on stderr what it held."""
    from whats_agent.message_log import MessageLog, transfer
    from whats_agent.settings import CommonSettings, load

    if sys.stdout.isatty():
        raise AgentError("an export goes into a file or a pipe, not onto a terminal")
    done = transfer.export(MessageLog(load(CommonSettings).message_log_dir), after, sys.stdout.buffer)
    click.echo(json.dumps({"identity": done.identity, "last_id": done.last_id, "records": done.records}), err=True)


@commands.command("log-import")
def log_import() -> None:
    """Read an export of the message log from stdin, all of it or nothing. The worker then projects what PostgreSQL lacks."""
    from whats_agent.message_log import MessageLog, transfer
    from whats_agent.settings import CommonSettings, load

    done = transfer.restore(MessageLog(load(CommonSettings).message_log_dir), sys.stdin.buffer)
    print_json({"records": done.records, "last_id": done.last_id})


@commands.command("log-prune")
@click.option(
    "--up-to", type=click.IntRange(min=0), required=True, help="The last id that the last proven backup holds."
)
@click.option("--keep-days", type=float, default=KEEP_DAYS, show_default=True)
def log_prune(up_to: int, keep_days: float) -> None:
    """Remove records that are old, in a proven backup, and in PostgreSQL."""
    from whats_agent.database.connection import connect
    from whats_agent.message_log import MessageLog, transfer
    from whats_agent.settings import DatabaseSettings, load

    settings = load(DatabaseSettings)
    with connect(settings, "log-prune") as connection:
        row = connection.execute("select position from projection").fetchone()
    last = min(up_to, int(row[0]) if row else 0)
    print_json({"removed": transfer.prune(MessageLog(settings.message_log_dir), last, keep_days), "up_to": last})


@commands.command()
@click.argument("state", type=click.Choice(["on", "off"]))
def answers(state: str) -> None:
    """The kill switch: with answers off, messages are accepted and kept, and nobody is answered; not afterwards either."""
    from whats_agent.conversation.controls import ANSWERS, Control
    from whats_agent.message_log import Kind, MessageLog
    from whats_agent.settings import CommonSettings, load

    record_id = MessageLog(load(CommonSettings).message_log_dir).append(
        Kind.CONTROL, Control(ANSWERS, state).to_bytes()
    )
    print_json({"record": record_id})


@commands.command()
@click.argument("user")
def handback(user: str) -> None:
    """Give the conversation with USER (number or user id) back from a person to the agent."""
    from whats_agent.conversation.controls import HANDBACK, Control
    from whats_agent.message_log import Kind, MessageLog
    from whats_agent.settings import CommonSettings, load

    control = Control(HANDBACK, user.lstrip("+"))
    record_id = MessageLog(load(CommonSettings).message_log_dir).append(Kind.CONTROL, control.to_bytes())
    print_json({"record": record_id})


@commands.command()
@click.argument("process", type=click.Choice(["app", "worker"]), default="app")
def healthcheck(process: str) -> None:
    """Exit 0 while this container's PROCESS is well; for the container's own health check."""
    from whats_agent import heartbeat

    if process == "worker":
        if not heartbeat.is_fresh(
            Path(os.environ.get("MESSAGE_LOG_DIR") or heartbeat.DIRECTORY), HEARTBEAT_LIMIT_SECONDS
        ):
            raise AgentError(f"no heartbeat of this worker within {HEARTBEAT_LIMIT_SECONDS:g} s")
        return
    port = os.environ.get("WEB_BIND", "0.0.0.0:8000").rpartition(":")[2]
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=HEALTH_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except OSError as error:
        raise AgentError(f"no answer from the web processes: {error}") from error
    finally:
        connection.close()
    if status != 200:
        raise AgentError(f"the web processes answer {status}")


def print_json(value: dict[str, int]) -> None:
    """One line of JSON."""
    click.echo(json.dumps(value))


def main() -> None:
    """Entry point: one clear line for what is foreseen."""
    try:
        commands()
    except AgentError as error:
        _give_up(str(error))
    except Exception as error:
        told = _database_error(error)
        if told is None:
            raise
        _give_up(told)


def _database_error(error: Exception) -> str | None:
    """One line for what PostgreSQL's drivers raise, without loading them; None for anything else."""
    for module, name in (("psycopg", "Error"), ("sqlalchemy.exc", "OperationalError")):
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(error, getattr(loaded, name)):
            return f"PostgreSQL: {str(error).strip().splitlines()[0]}"
    return None


def _give_up(message: str) -> None:
    click.echo("\n".join(f"whats-agent: {line}" for line in message.splitlines()), err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
