"""A Prometheus endpoint: boundary tests by boundary, origin and verdict, and ringfence's own counters, on /metrics.

Text exposition format 0.0.4 and OpenMetrics 1.0, by prometheus_client. Labels come from the topology (segment names) and
closed sets only; boundaries beyond MAX_BOUNDARIES share the label `other`, so no input can make series without end.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from wsgiref.simple_server import WSGIServer

import polars as pl
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from pydantic import BaseModel, ConfigDict

from ringfence import bus
from ringfence.addresses import HostPort
from ringfence.batch import Batch, Problem
from ringfence.component import BuildContext, Status
from ringfence.errors import Permanent
from ringfence.telemetry import REGISTRY

MAX_BOUNDARIES = 2_000
OTHER = "other"
_LABELS = ["source.segment.tenant", "ringfence.boundary.id", "ringfence.boundary.origin", "ringfence.boundary.verdict"]


class _Both:
    """The sink's registry and the process's, as one."""

    def __init__(self, own: CollectorRegistry) -> None:
        self._registries = (REGISTRY, own)

    def collect(self):  # type: ignore[no-untyped-def]  # the type of prometheus_client's own collect()
        for registry in self._registries:
            yield from registry.collect()


class PrometheusEndpoint:
    """Counts boundary tests and serves the counters. They start at 0 with the process, as Prometheus expects."""

    def __init__(self, address: HostPort) -> None:
        self.topics = (bus.BOUNDARY,)
        self._address = address
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._registry = CollectorRegistry()
        self._tests = Counter(
            "ringfence_boundary_tests", "Boundary tests.", ["tenant", "boundary", "origin", "verdict"], registry=self._registry
        )
        self._last = Gauge(
            "ringfence_boundary_last_test_timestamp_seconds",
            "Event time of the latest test.",
            ["boundary"],
            registry=self._registry,
        )
        self._boundaries: set[str] = set()
        self._last_us: dict[str, int] = {}

    @property
    def port(self) -> int:
        """The port that is listened on; 0 when closed."""
        return self._server.server_port if self._server else 0

    async def open(self, state: bytes) -> None:
        """Listen."""
        if self._server is not None:
            return
        combined = CollectorRegistry()
        combined.register(_Both(self._registry))
        try:
            self._server, self._thread = start_http_server(self._address.port, self._address.host, combined)
        except OSError as error:
            raise Permanent(f"tcp {self._address} cannot be bound for /metrics: {error.strerror or error}") from None

    async def write(self, topic: str, batch: Batch) -> Mapping[int, Problem]:
        """One inc() per label set and batch."""
        for tenant, boundary, origin, verdict, count in batch.frame.group_by(_LABELS).len().iter_rows():
            label = self._label(boundary)
            self._tests.labels((tenant or "") if label == boundary else label, label, origin, verdict).inc(count)
        for boundary, last_us in batch.frame.group_by("ringfence.boundary.id").agg(pl.col("@timestamp").max()).iter_rows():
            label = self._label(boundary)
            if last_us is not None and last_us > self._last_us.get(label, 0):
                self._last_us[label] = last_us
                self._last.labels(label).set(last_us / 1_000_000)
        return {}

    def _label(self, boundary: str) -> str:
        if boundary not in self._boundaries:
            if len(self._boundaries) >= MAX_BOUNDARIES:
                return OTHER
            self._boundaries.add(boundary)
        return boundary

    async def flush(self) -> bytes:
        """Nothing to keep: counters of a process start at 0."""
        return b""

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = self._thread = None


class Settings(BaseModel):
    """Where to listen; loopback unless told otherwise, since metrics tell the names of segments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: HostPort = HostPort("127.0.0.1", 9464)


class PrometheusKind:
    """Entry point `prometheus`."""

    settings = Settings
    promise = "counters since the process started"
    status: Status = "experimental"
    sample = 'metrics: {type: prometheus, listen: "127.0.0.1:9464"}'

    def build(self, settings: Settings, context: BuildContext) -> PrometheusEndpoint:
        """Make the endpoint."""
        return PrometheusEndpoint(settings.listen)

    def resources(self, settings: Settings) -> Sequence[str]:
        """The port."""
        return (f"tcp {settings.listen}",)


KIND = PrometheusKind()
