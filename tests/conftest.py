"""What all tests share: seeded random numbers, and the switch for a fault."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from tests.mutations import MUTATIONS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutate", choices=sorted(MUTATIONS), help="switch on one fault, which tests must see")


def pytest_configure(config: pytest.Config) -> None:
    if name := config.getoption("--mutate"):
        MUTATIONS[name](pytest.MonkeyPatch())


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers from a seed of the test's own."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))
