"""The message bus: topic names, settings, and the choice of an engine by URL.

    memory:                       one process, nothing kept (tests, replay)
    sqlite:/var/lib/ringfence     SQLite segment files in a directory, fsync before acknowledgement (the default)
    kafka://host:9092,host:9092   Kafka through kafka-python; /NAME after it puts NAME for `ringfence` in topics and groups

Every engine passes the contract suite in `tests/bus/contract.py`; the promises are those of `ringfence.component.Bus`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from ringfence.component import Bus

EVENTS = "ringfence.events.v1"
BOUNDARY = "ringfence.boundary.v1"
DETECTIONS = "ringfence.detections.v1"
ALERTS = "ringfence.alerts.v1"
ACTIONS = "ringfence.actions.v1"
DEAD = "ringfence.dead.v1"
OWN_PREFIX = "ringfence"
TOPICS = (EVENTS, BOUNDARY, DETECTIONS, ALERTS, ACTIONS, DEAD)
"""What records travel on; `v1` is the major version of the schema. Detections are beside what detectors found, of class detector."""

STATE = "ringfence.state.v1"
"""Internal to the Kafka engine: compacted, keyed `<group>/<component>`. The other engines keep state beside the records."""

MIB = 1 << 20
GIB = 1 << 30

RequiredGroups = Mapping[str, Collection[str]]
"""The groups whose unread records may not be freed, each with the topics that it reads, whether it has joined yet or not."""

SecretReference = Annotated[str, Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$")]
"""Where a secret is, never the secret itself: `env:NAME` or `file:/path`."""


class KafkaLogin(BaseModel):
    """How to talk to the brokers of a Kafka cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to talk to the brokers."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """How to log in; needs a security_protocol that starts with SASL."""
    sasl_username: str | None = None
    """The name to log in with."""
    sasl_password: SecretReference | None = Field(default=None, repr=False)
    """Where the password is, `env:NAME` or `file:/path`."""
    ssl_cafile: str | None = None
    """PEM file of the authority that signed the brokers' certificates; without it those of the system."""
    ssl_certfile: str | None = None
    """PEM file of the client's certificate, where the brokers ask for one."""
    ssl_keyfile: str | None = None
    """PEM file of the key that belongs to ssl_certfile."""

    @model_validator(mode="after")
    def _login_is_complete(self) -> Self:
        uses_sasl = self.security_protocol.startswith("SASL")
        given = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        if uses_sasl and None in given:
            raise ValueError(f"{self.security_protocol} needs sasl_mechanism, sasl_username and sasl_password")
        if not uses_sasl and any(value is not None for value in given):
            raise ValueError(f"sasl_* settings need security_protocol SASL_SSL or SASL_PLAINTEXT, not {self.security_protocol}")
        return self


class BusSettings(KafkaLogin):
    """The section `bus` of the configuration. Each engine uses the settings that concern it and ignores the others."""

    retention_bytes: int = Field(default=10 * GIB, ge=0)
    """Embedded: bytes of segment files kept for re-reading after every required group is done with them."""
    retention_age_secs: float = Field(default=7 * 86_400.0, gt=0)
    """Embedded: age at which such a segment file is dropped, counted from when the next file was begun."""
    when_full: Literal["pause", "drop_oldest"] = "pause"
    """What gives way when a required group is too slow: the sources (they wait), or the oldest records (counted as lost)."""
    segment_bytes: int = Field(default=256 * MIB, ge=64 * 1024)
    """Embedded: size at which a new segment file is begun."""
    max_bytes: int = Field(default=20 * GIB, ge=1 * MIB)
    """Embedded: size of all segment files at which sources are refused; stages that consume may go a quarter beyond it."""
    ballast_bytes: int = Field(default=64 * MIB, ge=0)
    """Embedded: file that is freed when the disk is full, so that readers can commit; 0 is none."""
    memory_bytes: int = Field(default=256 * MIB, ge=1)
    """Memory: bytes of records that required groups have not committed at which a source has to wait."""

    partitions: int = Field(default=12, ge=1)
    """Kafka: partitions per topic that `ringfence setup bus` makes; the most processes that can share a stage."""
    replication_factor: int | None = Field(default=None, ge=1)
    """Kafka: copies of each partition that `ringfence setup bus` asks for; without it the brokers' default."""
    instance: str = Field(default="1", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    """Kafka: name of this process among those that run the same stage; stays the same when the process starts again."""

    @model_validator(mode="after")
    def _has_room_to_roll(self) -> BusSettings:
        """Only whole files are dropped, and never the active one: with less than two nothing could ever give way."""
        if self.max_bytes < 2 * self.segment_bytes:
            raise ValueError(
                f"max_bytes {self.max_bytes} is less than two segment files of {self.segment_bytes}; raise it, or lower segment_bytes"
            )
        return self


@dataclass(frozen=True, slots=True)
class Gap:
    """Records of a topic that are gone: offsets `first` up to but without `next`, since `at_us` (microseconds, UTC).

    `dropped` records were given up because `when_full` is `drop_oldest`, `damaged` ones could not be read any more.
    """

    topic: str
    first: int
    next: int
    cause: Literal["dropped", "damaged"]
    at_us: int


def open_bus(url: str, settings: BusSettings | None = None, required_groups: RequiredGroups | None = None) -> Bus:
    """Make the bus that `url` names; touches neither network nor disk until its `open()`. Raises ValueError on a bad URL."""
    settings = settings or BusSettings()
    required = dict(required_groups or {})
    scheme, _, rest = url.partition(":")
    if url == "memory:":
        from ringfence.bus.memory import MemoryBus

        return MemoryBus(settings, required)
    if scheme == "sqlite" and rest:
        from ringfence.bus.embedded import EmbeddedBus

        return EmbeddedBus(rest, settings, required)
    if scheme == "kafka" and _are_addresses(rest.removeprefix("//")):
        return _kafka_bus(rest.removeprefix("//"), settings)
    raise ValueError(f"{url!r} names no bus: accepted are memory:, sqlite:PATH and kafka://HOST:PORT[,HOST:PORT...][/NAME]")


def _kafka_bus(rest: str, settings: BusSettings) -> Bus:
    from ringfence.bus.kafka import KafkaBus
    from ringfence.bus.prefixed import PrefixedBus

    addresses, _, prefix = rest.partition("/")
    if not prefix:
        return KafkaBus(addresses.split(","), settings)
    topics = [prefix + topic.removeprefix(OWN_PREFIX) for topic in TOPICS]
    return PrefixedBus(prefix, KafkaBus(addresses.split(","), settings, topics))


def _are_addresses(text: str) -> bool:
    text, slash, prefix = text.partition("/")
    if slash and not re.fullmatch(r"[a-z][a-z0-9-]{0,63}", prefix):
        return False
    pairs = [part.rpartition(":") for part in text.split(",")]
    return all(host and port.isdecimal() and 0 < int(port) < 65_536 for host, _, port in pairs)
