# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images the tests run: those of one release, by ``WHATS_AGENT_RELEASE`` or the newest app image here."""

from __future__ import annotations

import os
from dataclasses import dataclass

import docker
import docker.errors

REPOSITORY = "whats_agent"
NEEDED = ("app", "postgres", "redis", "doubles")


class MissingImagesError(RuntimeError):
    """There is nothing to test; the message says in one line what to run."""


@dataclass(frozen=True)
class Images:
    """Full names with tags."""

    release: str
    app: str
    postgres: str
    redis: str
    doubles: str


def _newest_release(client: docker.DockerClient) -> str:
    """Tag of the most recently created app image."""
    tagged = [
        (image.attrs["Created"], tag.rpartition(":")[2])
        for image in client.images.list(name=f"{REPOSITORY}/app")
        for tag in image.tags
        if tag.startswith(f"{REPOSITORY}/app:")
    ]
    if not tagged:
        raise MissingImagesError(f"no image {REPOSITORY}/app here: run `make images` first")
    return max(tagged)[1]


def find(client: docker.DockerClient) -> Images:
    """The images of one release. Raises MissingImagesError when one is not there."""
    release = os.environ.get("WHATS_AGENT_RELEASE") or _newest_release(client)
    names = {part: f"{REPOSITORY}/{part}:{release}" for part in NEEDED}
    missing = []
    for name in names.values():
        try:
            client.images.get(name)
        except docker.errors.ImageNotFound:
            missing.append(name)
    if missing:
        raise MissingImagesError(f"missing {', '.join(missing)}: run `make images` first")
    return Images(release=release, **names)
