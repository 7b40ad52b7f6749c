from __future__ import annotations

from pathlib import Path

import pytest

from tests.bus import contract
from tests.bus.broker import ADDRESS, NEEDS_KAFKA


@pytest.fixture(params=["memory", "embedded", pytest.param("kafka", marks=NEEDS_KAFKA)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> contract.Engine:
    if request.param == "memory":
        return contract.memory()
    return contract.embedded(tmp_path) if request.param == "embedded" else contract.kafka(ADDRESS)


class TestEveryBus(contract.BusContract):
    """Memory, embedded and Kafka."""
