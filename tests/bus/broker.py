"""Where the tests find a real Kafka."""

from __future__ import annotations

import os

import pytest

ADDRESS = os.environ.get("RINGFENCE_TEST_KAFKA", "")

NEEDS_KAFKA = (
    pytest.mark.kafka,
    pytest.mark.skipif(
        not ADDRESS, reason="start one with services/kafka.sh start and set RINGFENCE_TEST_KAFKA=127.0.0.1:19092"
    ),
)
"""Marks of every test that talks to the broker; in a module of its own tests, assign them to `pytestmark`."""
