# SPDX-License-Identifier: GPL-3.0-or-later
"""What was seen is named, what cannot be mended is refused with what to do, and no secret is ever said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible.module_utils.whats_agent.config_apply import next_to_go
from ansible.module_utils.whats_agent.config_copies import Copy
from ansible.module_utils.whats_agent.config_diagnosis import assemble
from ansible.module_utils.whats_agent.config_drift import HASH_LABEL, Drift, Wanted, container_ns, of_containers
from ansible.module_utils.whats_agent.config_files import COMPOSE, ENV, REQUIRED, ConfigFile, expected_attributes
from ansible.module_utils.whats_agent.config_mend import contents
from ansible.module_utils.whats_agent.config_observe import Observed, Rendering, resolve
from ansible.module_utils.whats_agent.config_volume import VolumeEvidence
from ansible.module_utils.whats_agent.docker_host import ContainerState
from ansible.module_utils.whats_agent.errors import WhatsAgentError

from tests.unit.config.test_config_env import SECRET, SOUND

VOLUME = "whats_agent_pgdata_20261124T164500Z"


def _file(name: str, text: str) -> ConfigFile:
    return ConfigFile(name, text.encode(), expected_attributes(name), 1)


FILES = {name: _file(name, SOUND if name == ENV else f"{name} as deployed\n") for name in REQUIRED}
COPY = Copy("20261124T164500Z", FILES)
RENDERED = Rendering({name: file for name, file in FILES.items() if not name.startswith("certs/")}, True)
HEALTHY = Observed(files=FILES, copy=COPY, volume=VOLUME, volumes=(VOLUME,), release="r1", containers=6)


def _without(name: str, **more: Any) -> Observed:
    files = {other: file for other, file in FILES.items() if other != name}
    return replace(HEALTHY, files=files, missing=(name,), **more)


def test_all_is_well() -> None:
    diagnosis = assemble(HEALTHY)
    assert diagnosis["healthy"]
    assert diagnosis["cause"] == "healthy"
    assert diagnosis["refuse"] is None


@pytest.mark.parametrize(
    ("seen", "cause", "belongs_to"),
    [
        pytest.param(Observed(engine_error="no answer"), "engine_down", "recover_system.yml", id="engine"),
        pytest.param(Observed(missing=REQUIRED), "not_deployed", None, id="nothing_there"),
        pytest.param(_without(COMPOSE), "file_missing", None, id="missing"),
        pytest.param(replace(HEALTHY, invalid={COMPOSE: ["bad"]}), "file_invalid", None, id="invalid"),
        pytest.param(replace(HEALTHY, changed=(COMPOSE,)), "file_changed", None, id="changed"),
        pytest.param(
            replace(HEALTHY, attributes={ENV: ((0o644, 0, 0), (0o600, 0, 0))}),
            "attributes_wrong",
            None,
            id="attributes",
        ),
        pytest.param(replace(HEALTHY, drift=(Drift("app", "recreate", "old"),)), "drift", None, id="drift"),
        pytest.param(
            replace(HEALTHY, drift=(Drift("worker", "recreate", "old"),), unfinished={"id": 1}),
            "drift",
            "recover_db.yml",
            id="drift_in_a_restore",
        ),
        pytest.param(replace(HEALTHY, copy=None), "copy_missing", None, id="no_copy"),
    ],
)
def test_each_cause(seen: Observed, cause: str, belongs_to: str | None) -> None:
    diagnosis = assemble(seen)
    assert (diagnosis["cause"], diagnosis["belongs_to"]) == (cause, belongs_to)
    assert not diagnosis["healthy"]
    assert diagnosis["evidence"]
    assert diagnosis["summary"]["en"] != diagnosis["summary"]["pt"]


def test_the_controller_comes_first_where_it_is_of_the_deployed_version() -> None:
    seen = _without(COMPOSE, rendering=RENDERED)
    assert assemble(seen)["facts"]["sources"] == ["render", "restore_copy"]
    assert assemble(replace(seen, copy=None))["facts"]["sources"] == ["render"]
    newer = Rendering({**RENDERED.files, COMPOSE: _file(COMPOSE, "of a newer version\n")}, True)
    facts = assemble(replace(seen, rendering=newer))["facts"]
    assert facts["sources"] == ["restore_copy"]
    assert "compose.yml differ" in facts["why_not"][0]


def test_a_lost_certificate_is_made_anew_only_without_a_copy() -> None:
    seen = _without("certs/fullchain.pem", rendering=RENDERED)
    assert assemble(seen)["facts"]["sources"] == ["restore_copy"]
    assert assemble(replace(seen, copy=None))["facts"]["sources"] == ["render"]
    given = replace(RENDERED, makes_certificate=False)
    assert assemble(replace(seen, copy=None, rendering=given))["facts"]["sources"] == []


def test_secrets_lost_for_good_are_refused_with_what_to_do() -> None:
    rendering = replace(
        RENDERED, files={n: f for n, f in RENDERED.files.items() if n != ENV}, lacks=("missing: stack_db_password",)
    )
    diagnosis = assemble(_without(ENV, copy=None, rendering=rendering))
    assert diagnosis["cause"] == "file_missing"
    reason = diagnosis["refuse"]["reason"]
    assert "nothing here has the content of .env" in reason["en"]
    assert "missing: stack_db_password" in reason["en"]
    assert "vault" in reason["en"]
    assert "nada aqui tem o conteúdo" in reason["pt"]


def test_an_unknown_volume_is_refused_and_never_guessed() -> None:
    diagnosis = assemble(_without(ENV, rendering=RENDERED, volume=None, volumes=("a", "b")))
    assert "there are: a, b. It is never guessed" in diagnosis["refuse"]["reason"]["en"]
    with pytest.raises(WhatsAgentError, match="-e volume=NAME"):
        contents(_without(ENV, volume=None), "restore_copy")


def test_a_recovered_env_names_the_volume_in_use() -> None:
    new = contents(_without(ENV, volume="whats_agent_pgdata_20261124T170000Z"), "restore_copy")
    assert "DB_VOLUME=whats_agent_pgdata_20261124T170000Z\n" in new[ENV].text
    assert new[ENV].changed_ns is None
    assert contents(_without(ENV), "restore_copy")[ENV] == FILES[ENV]


def test_nothing_says_a_secret() -> None:
    changed = _file(ENV, SOUND.replace(f"{SECRET}4", f"{SECRET}9").replace("DB_HOST=postgres", f"DB_HOST={SECRET}5"))
    compose = _file(COMPOSE, f"compose.yml as deployed\npasted: {SECRET}1\n")
    key = _file("certs/privkey.pem", "other key\n")
    files = {**FILES, ENV: changed, COMPOSE: compose, key.name: key}
    diagnosis = assemble(replace(HEALTHY, files=files, changed=(ENV, COMPOSE, key.name)))
    said = json.dumps(diagnosis, ensure_ascii=False)
    assert SECRET not in said
    assert "other key" not in said
    assert "META_APP_SECRET changed" in said
    assert "+pasted: [redacted]" in said


def test_a_rendering_takes_from_the_server_what_only_it_knows(tmp_path: Any) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "db_password").write_text("of-the-server\n")
    text = "RELEASE=@@release@@\nDB_VOLUME=@@volume@@\nDB_PASSWORD=@@secret:db_password@@\n"
    evidence = VolumeEvidence(mounted=VOLUME, existing=(VOLUME,))
    done = resolve(Rendering({ENV: _file(ENV, text)}), tmp_path, evidence, "r1")
    assert done.files[ENV].text == f"RELEASE=r1\nDB_VOLUME={VOLUME}\nDB_PASSWORD=of-the-server\n"
    lost = resolve(Rendering({ENV: _file(ENV, text)}), tmp_path / "none", VolumeEvidence(), None)
    assert lost.files == {}
    assert lost.lacks == (
        "the server's own release is not known",
        "the server's own secret db_password is not known",
        "the server's own volume is not known",
    )


def _container(service: str, number: int, digest: str = "wanted", **more: Any) -> ContainerState:
    values: dict[str, Any] = {
        "id": f"{service}{number}",
        "name": f"whats_agent-{service}-{number}",
        "project": "whats_agent",
        "service": service,
        "image": f"whats_agent/{service}:r1",
        "image_id": "sha256:1",
        "status": "running",
        "exit_code": 0,
        "oom_killed": False,
        "restart_count": 0,
        "health": "healthy",
        "error": "",
        "started_at": "2026-11-24T16:45:00.5Z",
        "finished_at": "",
        "labels": {HASH_LABEL: digest},
    }
    return ContainerState(**{**values, **more})


def test_drift_is_another_hash_too_many_replicas_or_a_file_written_since_the_start() -> None:
    wanted = Wanted({"app": "wanted", "redis": "wanted"}, {"app": 2, "redis": 1}, 8000, 443)
    right = [_container("app", 1), _container("app", 2), _container("redis", 1)]
    assert of_containers(wanted, right, {}) == []
    other = [_container("app", 1, "other"), *right[1:]]
    assert of_containers(wanted, other, {}) == [Drift("app", "recreate", "1 of 2 made from other settings")]
    assert of_containers(wanted, [*right, _container("app", 3)], {}) == [
        Drift("app", "recreate", "3 containers instead of 2")
    ]
    late = container_ns("2026-11-24T16:45:09Z")
    files = {"config/redis/redis.conf": replace(FILES["config/redis/redis.conf"], changed_ns=late)}
    assert of_containers(wanted, right, files) == [
        Drift("redis", "restart", "started before config/redis/redis.conf was written")
    ]
    assert of_containers(wanted, [], files) == []


def test_replicas_go_one_at_a_time_and_never_the_last_that_serves() -> None:
    def names(
        old: int, new: int, dead: int = 0
    ) -> tuple[list[ContainerState], list[ContainerState], list[ContainerState]]:
        outdated = [_container("app", number, "other") for number in range(old)]
        broken = [_container("app", 10 + number, "other", health="unhealthy") for number in range(dead)]
        fresh = [_container("app", 20 + number) for number in range(new)]
        return [*outdated, *broken, *fresh], fresh, [*outdated, *fresh]

    assert next_to_go(*names(2, 0), 2) is None  # a new one first
    assert next_to_go(*names(2, 1), 2) is not None
    assert next_to_go(*names(1, 1), 2) is None
    assert next_to_go(*names(1, 2), 2) is not None
    assert next_to_go(*names(0, 2), 2) is None  # done
    surplus = next_to_go(*names(0, 3), 2)
    assert surplus is not None  # what a killed run left
    idle = next_to_go(*names(1, 0, dead=1), 2)
    assert idle is not None
    assert idle.health == "unhealthy"
