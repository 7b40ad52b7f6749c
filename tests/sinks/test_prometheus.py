"""The Prometheus endpoint: what a scrape sees, and that no input makes series without end."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import generate_latest

from ringfence import bus
from ringfence.addresses import HostPort
from ringfence.batch import EventClass
from ringfence.component import BuildContext
from ringfence.errors import Permanent
from ringfence.topology import EMPTY
from sinks import prometheus
from sinks.prometheus import KIND, PrometheusEndpoint
from tests import frames


def crossing(
    source: str = "users", destination: str = "servers", verdict: str = "held", tenant: str | None = "a", at: int = frames.AT_US
) -> dict[str, Any]:
    return {
        "@timestamp": at,
        "source.segment.tenant": tenant,
        "ringfence.boundary.id": f"{source} -> {destination}",
        "ringfence.boundary.origin": "observed",
        "ringfence.boundary.verdict": verdict,
    }


def endpoint(port: int = 0) -> PrometheusEndpoint:
    return KIND.build(KIND.settings(listen=HostPort("127.0.0.1", port)), BuildContext("metrics", EMPTY))


def write(made: PrometheusEndpoint, *rows: dict[str, Any]) -> None:
    asyncio.run(made.write(bus.BOUNDARY, frames.batch(EventClass.BOUNDARY, rows)))


def samples(made: PrometheusEndpoint) -> dict[str, float]:
    lines = generate_latest(made._registry).decode().splitlines()
    found = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}
    return {name: value for name, value in found.items() if "_created" not in name}


def counted(boundary: str, verdict: str, tenant: str = "a") -> str:
    return f'ringfence_boundary_tests_total{{boundary="{boundary}",origin="observed",tenant="{tenant}",verdict="{verdict}"}}'


def last(boundary: str) -> str:
    return f'ringfence_boundary_last_test_timestamp_seconds{{boundary="{boundary}"}}'


def test_tests_are_counted_by_boundary_and_verdict() -> None:
    made = endpoint()
    write(made, crossing(), crossing(), crossing(verdict="breached"))

    assert [samples(made)[counted("users -> servers", verdict)] for verdict in ("held", "breached")] == [2, 1]


def test_counts_add_up_over_batches() -> None:
    made = endpoint()
    write(made, crossing())
    write(made, crossing())

    assert samples(made)[counted("users -> servers", "held")] == 2


def test_a_segment_without_tenant_has_an_empty_label() -> None:
    made = endpoint()
    write(made, crossing(tenant=None))

    assert counted("users -> servers", "held", "") in samples(made)


def test_the_latest_test_of_a_boundary_is_shown() -> None:
    made = endpoint()
    write(made, crossing(at=5_000_000), crossing(at=7_500_000))

    assert samples(made)[last("users -> servers")] == 7.5


def test_an_older_batch_does_not_turn_the_time_back() -> None:
    made = endpoint()
    write(made, crossing(at=7_500_000))
    write(made, crossing(at=5_000_000))

    assert samples(made)[last("users -> servers")] == 7.5


def test_boundaries_beyond_the_bound_share_one_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MAX_BOUNDARIES", 3)
    made = endpoint()
    write(made, *(crossing(f"s{number}", tenant=f"t{number}") for number in range(50)))

    assert len([name for name in samples(made) if name.startswith("ringfence_boundary_tests_total")]) == 4


def test_what_is_beyond_the_bound_is_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MAX_BOUNDARIES", 0)
    made = endpoint()
    write(made, *(crossing(f"s{number}") for number in range(50)))

    assert samples(made)[counted("other", "held", "other")] == 50


def test_the_time_beyond_the_bound_is_the_latest_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MAX_BOUNDARIES", 0)
    made = endpoint()
    write(made, *(crossing(f"s{number}", at=number * 1_000_000) for number in (3, 9, 1)))

    assert samples(made)[last("other")] == 9


def test_an_endpoint_that_is_closed_has_no_port() -> None:
    assert endpoint().port == 0


def test_closing_unopened_is_allowed() -> None:
    asyncio.run(endpoint().close())


def test_there_is_no_state_to_keep() -> None:
    assert asyncio.run(endpoint().flush()) == b""


def test_the_port_is_claimed() -> None:
    assert list(KIND.resources(KIND.settings())) == ["tcp 127.0.0.1:9464"]


@contextmanager
def listening() -> Iterator[PrometheusEndpoint]:
    made = endpoint()
    asyncio.run(made.open(b""))
    try:
        yield made
    finally:
        asyncio.run(made.close())


def scrape(port: int, accept: str = "text/plain") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        body: bytes = answer.read()
    return body.decode()


@pytest.mark.net
def test_a_scrape_sees_boundary_tests() -> None:
    with listening() as made:
        write(made, crossing())

        assert f"{counted('users -> servers', 'held')} 1.0" in scrape(made.port)


@pytest.mark.net
def test_a_scrape_sees_the_counters_of_ringfence_itself() -> None:
    with listening() as made:
        assert "ringfence_build_info{" in scrape(made.port)


@pytest.mark.net
def test_open_metrics_is_served_on_request() -> None:
    with listening() as made:
        assert scrape(made.port, "application/openmetrics-text; version=1.0.0").endswith("# EOF\n")


@pytest.mark.net
def test_a_name_with_quotes_breaks_no_line() -> None:
    with listening() as made:
        write(made, crossing('a"\n\\'))

        assert 'boundary="a\\"\\n\\\\ -> servers"' in scrape(made.port)


@pytest.mark.net
def test_opening_again_keeps_the_port() -> None:
    with listening() as made:
        port = made.port
        asyncio.run(made.open(b""))

        assert made.port == port


@pytest.mark.net
def test_a_closed_endpoint_listens_no_more() -> None:
    with listening() as made:
        port = made.port

    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=10).close()


@pytest.mark.net
def test_a_busy_port_is_told_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(Permanent, match=rf"^tcp 127\.0\.0\.1:{port} cannot be bound for /metrics: Address already in use$"):
            asyncio.run(endpoint(port).open(b""))
