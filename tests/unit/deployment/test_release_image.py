# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine tells while it builds and loads, captured from it, and what a run's journal says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.whats_agent import release_image
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.journal import Journal, Progress
from ansible.module_utils.whats_agent.lock import Idle

RUN = "20261122T100000Z-1a2b3c4d"
BUILT: list[dict[str, Any]] = [
    {"stream": "Step 1/3 : ARG BASE_IMAGE"},
    {"stream": "\n"},
    {"stream": "Step 2/3 : FROM ${BASE_IMAGE}"},
    {"stream": " ---> d4718dd22ea1\n"},
    {"stream": "Step 3/3 : RUN head -c 6000000 /dev/urandom >/y"},
    {"stream": " ---> Running in 056d488dec2f\n"},
    {"aux": {"ID": "sha256:74a2a75548d134cc705f91df428a9bde45233e45b9a484f2ba8cf5294cd48635"}},
    {"stream": "Successfully tagged whats_agent/test:1\n"},
]
FAILED: list[dict[str, Any]] = [
    {"stream": "Step 2/2 : RUN test -e /nothing"},
    {"stream": " ---> Running in c23fb7623c56\n"},
    {
        "errorDetail": {"code": 1, "message": "The command '/bin/sh -c test -e /nothing' returned a non-zero code: 1"},
        "error": "The command '/bin/sh -c test -e /nothing' returned a non-zero code: 1",
    },
]
LAYER: dict[str, Any] = {"status": "Loading layer", "id": "1f0dbaed2a2b"}
LOADED: list[dict[str, Any]] = [
    {**LAYER, "progressDetail": {"current": 65536, "total": 6002176}, "progress": "[>  ]  65.54kB/6.002MB"},
    {**LAYER, "progressDetail": {"current": 6002176, "total": 6002176}, "progress": "[==>]  6.002MB/6.002MB"},
    {"status": "Loading layer", "progressDetail": {}, "id": "9d2c6a5a2f11"},
    {"stream": "Loaded image: whats_agent/test:1\n"},
]
BROKEN: list[dict[str, Any]] = [
    {
        "errorDetail": {"message": "Error processing tar file(exit status 1): unexpected EOF"},
        "error": "Error processing tar file(exit status 1): unexpected EOF",
    }
]


class Engine:
    """Answers as the engine did."""

    def __init__(self, answer: list[dict[str, Any]]) -> None:
        self.answer = answer
        self.asked: dict[str, Any] = {}
        self.received = 0

    def build(self, **asked: Any) -> Iterator[dict[str, Any]]:
        """Stream a build's events."""
        self.asked = asked
        yield from self.answer

    def load_image(self, data: Iterator[bytes], *, quiet: bool) -> Iterator[dict[str, Any]]:
        """Take the archive in, then stream a load's events; a quiet one tells of no layer."""
        assert not quiet
        self.received = sum(map(len, data))
        yield from self.answer


def _docker(engine: Engine) -> DockerHost:
    client: Any = SimpleNamespace(api=engine)
    return DockerHost(client)


def _progress(state_dir: Path, step: str, unit: str = "bytes") -> Progress:
    return Progress(Journal(state_dir, RUN), step, unit=unit, interval=0)


def _written(state_dir: Path) -> list[tuple[Any, ...]]:
    lines = (state_dir / "runs" / f"{RUN}.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert {event["event"] for event in events} == {"progress"}
    assert all({"percent", "done", "total", "unit", "seconds", "seconds_left"} <= event.keys() for event in events)
    return [(event["step"], event["done"], event["total"], event["unit"]) for event in events]


def test_a_build_counts_its_steps(tmp_path: Path) -> None:
    engine = Engine(BUILT)
    options = {"path": "/build", "buildargs": {"BASE_IMAGE": "base"}, "labels": {}}
    release_image.build(_docker(engine), "whats_agent/test:1", options, _progress(tmp_path, "build", "steps"), Idle())
    assert engine.asked == {"tag": "whats_agent/test:1", "decode": True, "rm": True, **options}
    assert [done for _, done, *_ in _written(tmp_path)] == [0, 1, 2, 3]
    assert _written(tmp_path)[-1] == ("build", 3, 3, "steps")


def test_a_build_that_fails_says_why_and_what_it_printed(tmp_path: Path) -> None:
    progress = _progress(tmp_path, "build", "steps")
    with pytest.raises(
        WhatsAgentError, match=r"cannot build whats_agent/test:1: The command .* non-zero code: 1"
    ) as failed:
        release_image.build(_docker(Engine(FAILED)), "whats_agent/test:1", {}, progress, Idle())
    assert failed.value.details["stderr"] == "Step 2/2 : RUN test -e /nothing"
    assert all(done < total for _, done, total, _ in _written(tmp_path))


def test_a_load_tells_how_much_is_sent_and_then_how_much_is_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "images.tar"
    archive.write_bytes(b"x" * 6_010_000)
    engine = Engine(LOADED)
    names = release_image.load(
        _docker(engine), archive, _progress(tmp_path, "send"), _progress(tmp_path, "load"), Idle()
    )
    assert names == ["whats_agent/test:1"]
    assert engine.received == 6_010_000
    written = _written(tmp_path)
    assert [done for step, done, *_ in written if step == "send"][-1] == 6_010_000
    assert [done for step, done, *_ in written if step == "load"] == [65536, 6002176, 6_010_000]


def test_an_archive_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    archive = tmp_path / "images.tar"
    archive.write_bytes(b"nonsense")
    with pytest.raises(WhatsAgentError, match=r"cannot load .*images.tar: Error processing tar file"):
        release_image.load(
            _docker(Engine(BROKEN)), archive, _progress(tmp_path, "send"), _progress(tmp_path, "load"), Idle()
        )
