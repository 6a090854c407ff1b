"""Fixtures that every room shares: one Ray for the whole suite."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

ATTEMPTS = 3


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A local Ray of four logical CPUs, started once and ended with the session."""
    import ray
    import ray._private.utils as internals

    with pytest.MonkeyPatch.context() as patch:
        # Ray waits a fixed 15 seconds for its dashboard agent, whose imports take longer on a busy machine. Told
        # that the dashboard's packages are missing, it starts the small agent, which is all that tests need.
        patch.setattr(internals, "get_dashboard_dependency_error", lambda: ImportError("tests have no dashboard"))
        for attempt in range(ATTEMPTS):
            try:
                ray.init(
                    address="local",
                    num_cpus=4,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    namespace="tests",
                    object_store_memory=256 * 1024 * 1024,
                )
                break
            except Exception:
                # Its other waits are fixed too; a second try usually finds the machine less busy.
                ray.shutdown()
                if attempt + 1 == ATTEMPTS:
                    raise
    yield
    ray.shutdown()
