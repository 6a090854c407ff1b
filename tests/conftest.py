"""What every room shares: one Ray for the whole suite, and how the suite is spread over two processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from patient_ray import start_ray
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the suite's two processes have one core each
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 would have its workers wait for the other tests to end

# A machine that is busy with something else is no fault of what is tested.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


class _ByRoom(LoadScopeScheduling):
    """The tests of one folder stay in one process: they share what their fixtures made, Ray above all."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("::", 1)[0].rsplit("/", 1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _ByRoom(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole pipeline comes first: it mostly waits for processes to start, and the other tests run beside it."""
    items.sort(key=lambda item: item.path.parent.name != "e2e")  # a stable sort: the rest stays in order


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A local Ray of two logical CPUs, started once and ended with the session."""
    import ray
    import ray._private.utils as internals

    with pytest.MonkeyPatch.context() as patch:
        # Ray waits a fixed 15 seconds for its dashboard agent, whose imports take longer on a busy machine. Told
        # that the dashboard's packages are missing, it starts the small agent, which is all that tests need.
        patch.setattr(internals, "get_dashboard_dependency_error", lambda: ImportError("tests have no dashboard"))
        start_ray(
            num_cpus=2,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="tests",
            object_store_memory=256 * 1024 * 1024,
        )
    yield
    ray.shutdown()
