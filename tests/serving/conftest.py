"""What the endpoint's tests share: two tiny packages, and asyncio under anyio's plugin."""

from __future__ import annotations

import pytest
from tiny_package import make_package

from serving.state import ServedModel


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[ServedModel, ServedModel]:
    """Two packages as versions 3 and 4 of one model."""
    folder = tmp_path_factory.mktemp("packages")
    made = [make_package(folder, seed) for seed in (0, 1)]
    three, four = (
        ServedModel(package_uri=uri, package_sha256=manifest.sha256(), model="sonarc", version=version)
        for (uri, manifest), version in zip(made, ("3", "4"), strict=True)
    )
    return three, four
