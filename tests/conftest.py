"""What all tests share: seeded random numbers."""

from __future__ import annotations

import zlib

import numpy as np
import pytest


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers from a seed of the test's own."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))
