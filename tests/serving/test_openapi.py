"""schemathesis over the OpenAPI document: whatever it makes up, no answer is a 5xx or in another shape."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import uvicorn
from endpoint import running
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from serving.state import ServedModel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(served: tuple[ServedModel, ServedModel]) -> Iterator[str]:
    """The application behind a real HTTP server, in a thread."""
    servers: list[uvicorn.Server] = []
    ready = threading.Event()

    async def serve() -> None:
        async with running(served[0], job_ttl_s=2.0, max_clips=2) as endpoint:
            server = uvicorn.Server(uvicorn.Config(endpoint.app, port=0, lifespan="off", log_level="warning"))
            serving = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            servers.append(server)
            ready.set()
            await serving

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(120)
    host, port = servers[0].servers[0].sockets[0].getsockname()[:2]
    yield f"http://{host}:{port}"
    servers[0].should_exit = True
    thread.join(30)


CHECKS = [not_a_server_error, content_type_conformance, status_code_conformance]


def test_document_and_answers_agree(address: str) -> None:
    document = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) >= 10
    for operation in operations:

        @settings(
            max_examples=25,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        @given(case=operation.as_strategy())
        def agrees(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, timeout=60)

        agrees()
