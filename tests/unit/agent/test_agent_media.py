# SPDX-License-Identifier: GPL-3.0-or-later
"""Media through the Graph double over real HTTP: what is fetched, what is refused, and who gets to see the token."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
from werkzeug.serving import make_server

from tests.doubles.graph import create_app
from tests.doubles.settings import GraphSettings
from whats_agent.media.download import (
    PART,
    Fetched,
    Limits,
    MediaClient,
    MediaRefusedError,
    MediaUnavailableError,
    origin_of,
    plain_type,
    same_digest,
)
from whats_agent.media.folder import STALE_SECONDS, Folder, NoRoomError
from whats_agent.whatsapp.message_types import media_id_of

TOKEN = "at-4e60c9b81fd7a352"
PHONE = "555000111222333"
PICTURE = b"\xff\xd8\xff" + bytes(range(256)) * 40
TYPES = frozenset({"image/jpeg", "audio/ogg"})


class Place:
    """One double, serving in a thread."""

    def __init__(self, folder: Path) -> None:
        settings = GraphSettings(app_secret="s", access_token=TOKEN, phone_number_id=PHONE, state_dir=folder)
        self._server = make_server("127.0.0.1", 0, create_app(settings), threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, media_id: str, mime_type: str = "image/jpeg", content: bytes = PICTURE, **more: Any) -> None:
        order = {"id": media_id, "mime_type": mime_type, "content": base64.b64encode(content).decode(), **more}
        httpx.post(f"{self.url}/_double/media", json=order).raise_for_status()

    def fetched(self) -> list[str]:
        """The media ids whose bytes were asked for here, with or without the token."""
        asked: list[str] = httpx.get(f"{self.url}/_double/media").json()["fetched"]
        return asked

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Callable[[], Place]]:
    made: list[Place] = []

    def make() -> Place:
        folder = tmp_path / f"double-{len(made)}"
        folder.mkdir()
        made.append(Place(folder))
        return made[-1]

    yield make
    for place in made:
        place.stop()


@pytest.fixture
def graph(places: Callable[[], Place]) -> Place:
    return places()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "media"
    path.mkdir()
    return path


def client(graph: Place, *, token: str = TOKEN, max_bytes: int = 100_000, seconds: float = 10.0) -> MediaClient:
    return MediaClient(graph.url, "v25.0", lambda: token, Limits(frozenset({graph.url}), TYPES, max_bytes, seconds))


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_is_fetched_whole(graph: Place, folder: Path) -> None:
    graph.add("1001")
    fetched = client(graph).fetch("1001", PHONE, folder)
    assert fetched.path.read_bytes() == PICTURE
    assert fetched == Fetched(fetched.path, "image/jpeg", hashlib.sha256(PICTURE).hexdigest(), len(PICTURE))


def test_a_type_with_parameters_is_the_type_itself(graph: Place, folder: Path) -> None:
    graph.add("1002", "audio/ogg; codecs=opus", b"OggS")
    assert client(graph).fetch("1002", PHONE, folder).mime_type == "audio/ogg"


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        pytest.param({"mime_type": "application/x-sh"}, "MEDIA_TYPES", id="wrong_type"),
        pytest.param({"mime_type": "text/html", "told": {"mime_type": "image/jpeg"}}, "MEDIA_TYPES", id="type_lies"),
        pytest.param({"content": b"x" * 100_001}, "MEDIA_MAX_BYTES", id="too_large"),
        pytest.param({"content": b"x" * 100_001, "told": {"file_size": 7}}, "MEDIA_MAX_BYTES", id="size_lies"),
        pytest.param({"told": {"url": None}}, "no URL", id="no_url"),
        pytest.param({"told": {"url": "file:///etc/passwd"}}, "no usable URL", id="a_file"),
        pytest.param({"told": {"url": "http://169.254.169.254/latest/meta-data"}}, "MEDIA_ORIGINS", id="inner_service"),
        pytest.param({"told": {"url": "http://user:pw@127.0.0.1/x"}}, "no usable URL", id="userinfo"),
        pytest.param({"location": "http://169.254.169.254/"}, "status 302", id="sent_on"),
    ],
)
def test_what_the_limits_do_not_allow_is_refused_and_leaves_nothing(
    graph: Place, folder: Path, order: dict[str, Any], reason: str
) -> None:
    graph.add("1003", **order)
    with pytest.raises(MediaRefusedError, match=reason):
        client(graph).fetch("1003", PHONE, folder)
    assert left_in(folder) == []


def test_no_other_place_is_called_though_meta_s_answer_names_it(
    graph: Place, places: Callable[[], Place], folder: Path
) -> None:
    elsewhere = places()
    elsewhere.add("1004")
    graph.add("1004", told={"url": f"{elsewhere.url}/whatsapp_business/attachments/?mid=1004"})
    with pytest.raises(MediaRefusedError, match="MEDIA_ORIGINS"):
        client(graph).fetch("1004", PHONE, folder)
    assert elsewhere.fetched() == []


@pytest.mark.parametrize("media_id", ["../me", "1/2", "", "x" * 200, "1?fields=a"])
def test_an_id_that_is_none_asks_nobody(graph: Place, folder: Path, media_id: str) -> None:
    with pytest.raises(MediaRefusedError, match="no media id"):
        client(graph).fetch(media_id, PHONE, folder)


def test_what_may_pass_is_tried_again(graph: Place, folder: Path) -> None:
    graph.add("1005")
    with pytest.raises(MediaUnavailableError, match="status 401"):
        client(graph, token="another token of somebody").fetch("1005", PHONE, folder)
    graph.add("1006", told={"sha256": "0" * 64})
    with pytest.raises(MediaUnavailableError, match="SHA-256"):
        client(graph).fetch("1006", PHONE, folder)
    with pytest.raises(MediaUnavailableError, match="not whole within"):
        client(graph, seconds=-1.0).fetch("1005", PHONE, folder)
    graph.stop()
    with pytest.raises(MediaUnavailableError, match="broke off"):
        client(graph).fetch("1005", PHONE, folder)
    assert left_in(folder) == []


def test_a_file_that_is_gone_at_meta_is_refused(graph: Place, folder: Path) -> None:
    with pytest.raises(MediaRefusedError, match="status 400"):
        client(graph).fetch("404", PHONE, folder)


def test_digests_in_either_notation() -> None:
    digest = hashlib.sha256(b"x")
    assert same_digest(digest.hexdigest().upper(), digest.hexdigest())
    assert same_digest(base64.b64encode(digest.digest()).decode(), digest.hexdigest())
    assert same_digest(None, digest.hexdigest())
    assert not same_digest("===", digest.hexdigest())


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://lookaside.fbsbx.com/a?b", "https://lookaside.fbsbx.com"),
        ("https://LOOKASIDE.fbsbx.com:443/a", "https://lookaside.fbsbx.com"),
        ("https://lookaside.fbsbx.com.evil.example/a", "https://lookaside.fbsbx.com.evil.example"),
        ("http://lookaside.fbsbx.com/a", "http://lookaside.fbsbx.com"),
    ],
)
def test_origins(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_plain_types() -> None:
    assert plain_type("Image/JPEG; q=1") == "image/jpeg"
    assert plain_type(None) == ""


def test_only_media_types_name_a_file() -> None:
    assert media_id_of("image", {"image": {"id": "7"}}) == "7"
    assert media_id_of("image", {"image": "broken"}) is None
    assert media_id_of("text", {"text": {"id": "7"}}) is None


def test_the_folder_names_files_by_their_digest(tmp_path: Path) -> None:
    media = Folder(tmp_path)
    media.prepare()
    part = media.path / f"{PART}host-1"
    part.write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    media.take(Fetched(part, "image/jpeg", digest, 1))
    assert left_in(media.path) == [digest]
    media.drop(digest)
    media.drop(digest)
    assert left_in(media.path) == []
    with pytest.raises(ValueError, match="not a SHA-256"):
        media.drop("../messages.sqlite3")


def test_what_a_killed_process_left_is_removed_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    media = Folder(tmp_path)
    media.prepare()
    old, new = media.path / f"{PART}a-1", media.path / f"{PART}b-2"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - STALE_SECONDS - 1,) * 2)
    media.prepare()
    assert left_in(media.path) == [new.name]


def test_a_disk_that_fills_up_gets_no_media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = Folder(tmp_path)
    media.prepare()
    real = os.statvfs(tmp_path)
    for free, refused in ((20, False), (19, True)):
        # A hundred in use or free to us; as many again are kept back and count as neither.
        shown = os.statvfs_result((*real[:2], 200, 100 + free, free, *real[5:]))
        monkeypatch.setattr(os, "statvfs", lambda _path, shown=shown: shown)
        with pytest.raises(NoRoomError, match="20%") if refused else nullcontext():
            media.must_have_room()
