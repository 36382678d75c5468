# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAPI description is true: whatever is asked, the answer is one that it describes."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from tests.unit.agent.agent_bodies import ENVIRONMENT
from whats_agent.app import create_app, create_flask
from whats_agent.metrics import Recorder
from whats_agent.settings import WebSettings, load
from whats_agent.views.production import DESCRIPTION

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

AWAY = {"DB_HOST": "127.0.0.1", "DB_PORT": "9", "REDIS_URL": "redis://127.0.0.1:9/0"}
PATHS = json.loads(DESCRIPTION.read_text(encoding="utf-8"))["paths"]
OPERATIONS = [(path, method) for path, operations in PATHS.items() for method in operations]


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    """The description as the application itself serves it, with no service behind it."""
    directory = tmp_path_factory.mktemp("openapi")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **ENVIRONMENT,
            **AWAY,
            "MESSAGE_LOG_DIR": str(directory),
            "LOG_DIR": str(directory),
        }.items():
            patch.setenv(name, value)
        application = create_app()

        def from_this_host(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            return application({**environ, "REMOTE_ADDR": "127.0.0.1"}, start_response)

        yield schemathesis.openapi.from_wsgi("/openapi.json", from_this_host)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_is_described(schema: schemathesis.BaseSchema, path: str, method: str) -> None:
    @given(case=schema[path][method].as_strategy())
    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(case: "schemathesis.Case[Any]") -> None:
        # 503 is described where a part may be away; 500 nowhere, so that it fails as undescribed.
        case.call_and_validate(excluded_checks=[not_a_server_error])

    check()


@pytest.mark.usefixtures("environment")
def test_every_route_is_described() -> None:
    # POST /webhook is answered in front of Flask, on a path that Flask knows too.
    routes = {rule.rule for rule in create_flask(load(WebSettings), Recorder(None)).url_map.iter_rules()}
    assert routes == set(PATHS)
