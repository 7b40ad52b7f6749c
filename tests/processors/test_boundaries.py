"""Verdicts: the table of intent and outcome, and what each kind of evidence proves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.boundaries import KIND, Boundaries
from processors.segments import Segments
from ringfence import bus
from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext
from ringfence.topology import Intent, Segment, Topology, parse_service
from tests import frames

USER, SERVER, THING, SHARED, ABROAD, NOBODY = "10.1.0.5", "10.2.0.9", "10.3.0.7", "10.9.0.1", "192.0.2.1", None
USER6, SERVER6 = "2001:db8:1::5", "2001:db8:2::9"
SEGMENTS: dict[str, dict[str, Any]] = {
    "users": {"networks": ["10.1.0.0/16", "2001:db8:1::/64"]},
    "servers": {"networks": ["10.2.0.0/16", "2001:db8:2::/64"], "id": "srv-1", "role": "servers", "tenant": "b", "site": "hq"},
    "iot": {"networks": ["10.3.0.0/16"]},
    "east": {"networks": ["10.9.0.0/16"], "vlan": 91},
    "west": {"networks": ["10.9.0.0/16"], "vlan": 92},
}
INTENTS: list[dict[str, Any]] = [
    {"from": "users", "to": "servers", "allow": ["https", "tcp/8080", "udp/53", "udp/5353", "icmp", "icmpv6"]},
    {"from": "servers", "to": "users", "deny": ["all"]},
    {"from": "users", "to": "outside", "allow": ["all"]},
    {"from": "users", "to": ["east", "west"], "deny": ["all"]},
]
PF, FLOW, ALERT, DNS, HTTP, TLS, SSH = (
    EventClass.PF,
    EventClass.FLOW,
    EventClass.ALERT,
    EventClass.DNS,
    EventClass.HTTP,
    EventClass.TLS,
    EventClass.SSH,
)
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
HIGH = 50_000


def topology(default: str = "undeclared") -> Topology:
    segments = {name: Segment.model_validate(body) for name, body in SEGMENTS.items()}
    services = {"https": (parse_service("tcp/443"),)}
    intents = tuple(Intent.model_validate(intent) for intent in INTENTS)
    return Topology("t.yml", "deny" if default == "deny" else "undeclared", segments, {}, services, intents)


TOPOLOGY = topology()
WHERE, JUDGE = Segments(TOPOLOGY), Boundaries(TOPOLOGY)


def judged(batch: Batch) -> list[dict[str, Any]]:
    """The boundary tests of a batch, after both processors."""
    outputs = JUDGE.process(WHERE.process(batch, Micros(0)).batch, Micros(0)).outputs
    return [test for made in outputs.get(bus.BOUNDARY, ()) for test in made.frame.to_dicts()]


def crossed(event_class: EventClass, source: str, destination: str, **row: Any) -> list[dict[str, Any]]:
    return judged(frames.batch(event_class, [{**frames.ends(source, destination), **row}]))


def tcp(sport: int, dport: int, flags: int | None = None, **more: Any) -> dict[str, Any]:
    row = {"network.iana_number": TCP, "source.port": sport, "destination.port": dport, **more}
    return row if flags is None else {**row, "ringfence.tcp.source_flags": flags}


def udp(sport: int, dport: int, **more: Any) -> dict[str, Any]:
    return {"network.iana_number": UDP, "source.port": sport, "destination.port": dport, **more}


def pf(action: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"ringfence.pf.action": action, **row}


def verdict(event_class: EventClass, source: str, destination: str, row: dict[str, Any]) -> tuple[str, ...]:
    (test,) = crossed(event_class, source, destination, **row)
    return tuple(test[f"ringfence.boundary.{name}"] for name in ("id", "service", "outcome", "verdict"))


ANSWERED: dict[str, Any] = {"destination.packets": 3, "source.packets": 3}
SILENT: dict[str, Any] = {"destination.packets": 0, "source.packets": 3}
DROPPED: dict[str, Any] = {**SILENT, "ringfence.flow.action": "drop"}
BY_INTENT = {"allow": (USER, SERVER, 443), "deny": (USER, SERVER, 22), "undeclared": (USER, THING, 22)}
TABLE = {
    ("deny", "blocked"): "held",
    ("deny", "passed"): "breached",
    ("deny", "unknown"): "unproven",
    ("allow", "blocked"): "overblocked",
    ("allow", "passed"): "permitted",
    ("allow", "unknown"): "unproven",
    ("undeclared", "blocked"): "unproven",
    ("undeclared", "passed"): "undeclared",
    ("undeclared", "unknown"): "unproven",
}


@pytest.mark.parametrize(("intent", "outcome"), TABLE, ids=[f"{intent}-{outcome}" for intent, outcome in TABLE])
def test_intent_and_outcome_give_the_verdict(intent: str, outcome: str) -> None:
    source, destination, port = BY_INTENT[intent]
    facts: dict[str, Any] = {"blocked": DROPPED, "passed": ANSWERED, "unknown": SILENT}[outcome]

    (test,) = crossed(FLOW, source, destination, **tcp(40_000, port), **facts)

    assert {name: test[f"ringfence.boundary.{name}"] for name in ("intent", "outcome", "verdict")} == {
        "intent": intent,
        "outcome": outcome,
        "verdict": TABLE[intent, outcome],
    }


def test_with_a_default_of_deny_what_nobody_declared_is_breached() -> None:
    strict = topology("deny")
    batch = (
        Segments(strict)
        .process(frames.batch(FLOW, [{**frames.ends(USER, THING), **tcp(HIGH, 22), **ANSWERED}]), Micros(0))
        .batch
    )

    made = Boundaries(strict).process(batch, Micros(0)).outputs[bus.BOUNDARY][0]

    assert made.frame["ringfence.boundary.verdict"].to_list() == ["breached"]


HTTPS, BACK = "users -> servers", "servers -> users"
EVIDENCE: dict[str, tuple[EventClass, str, str, dict[str, Any], tuple[str, str, str, str]]] = {
    # pf
    "pf pass": (PF, USER, SERVER, pf("pass", tcp(HIGH, 22, SYN)), (HTTPS, "tcp/22", "passed", "breached")),
    "pf block": (PF, USER, SERVER, pf("block", tcp(HIGH, 22, SYN)), (HTTPS, "tcp/22", "blocked", "held")),
    "pf block of what is allowed": (PF, USER, SERVER, pf("block", tcp(HIGH, 443, SYN)), (HTTPS, "https", "blocked", "overblocked")),
    "pf passes a SYN-ACK": (PF, SERVER, USER, pf("pass", tcp(443, HIGH, SYN | ACK)), (HTTPS, "https", "passed", "permitted")),
    "pf blocks a SYN-ACK": (PF, SERVER, USER, pf("block", tcp(22, HIGH, SYN | ACK)), (HTTPS, "tcp/22", "blocked", "held")),
    "pf logs all of a connection": (PF, SERVER, USER, pf("pass", tcp(443, HIGH, ACK | PSH)), (HTTPS, "https", "passed", "permitted")),
    "pf logs all, undeclared port": (PF, SERVER, USER, pf("pass", tcp(8080, HIGH, ACK)), (HTTPS, "tcp/8080", "passed", "permitted")),
    "pf passes a SYN from a service port": (PF, SERVER, USER, pf("pass", tcp(443, HIGH, SYN)), (BACK, "tcp/50000", "passed", "breached")),
    "pf passes UDP from a service port": (PF, SERVER, USER, pf("pass", udp(53, HIGH)), (BACK, "udp/50000", "passed", "breached")),
    "pf blocks an ACK scan": (PF, USER, SERVER, pf("block", tcp(HIGH, 22, ACK)), (HTTPS, "tcp/22", "blocked", "held")),
    "pf passes an echo reply": (PF, SERVER, USER, pf("pass", {"network.iana_number": ICMP, "ringfence.icmp.type": 0}), (HTTPS, "icmp", "passed", "permitted")),
    "pf passes a fragment of an unknown port": (PF, USER, SERVER, pf("pass", {"network.iana_number": TCP}), (HTTPS, "tcp", "passed", "unproven")),
    "pf blocks a fragment of an unknown port": (PF, USER, SERVER, pf("block", {"network.iana_number": UDP}), (HTTPS, "udp", "blocked", "unproven")),
    "pf passes a fragment where all is denied": (PF, SERVER, USER, pf("pass", {"network.iana_number": TCP}), (BACK, "tcp", "passed", "breached")),
    "pf passes an unknown protocol": (PF, USER, SERVER, pf("pass", {}), (HTTPS, "unknown", "passed", "unproven")),
    "pf passes an unknown protocol where all is allowed": (PF, USER, ABROAD, pf("pass", {}), ("users -> outside", "unknown", "passed", "permitted")),
    # flows with both directions
    "answered": (FLOW, USER, SERVER, {**tcp(HIGH, 22, SYN | ACK), **ANSWERED}, (HTTPS, "tcp/22", "passed", "breached")),
    "silent": (FLOW, USER, SERVER, {**tcp(HIGH, 22, SYN), **SILENT}, (HTTPS, "tcp/22", "unknown", "unproven")),
    "refused": (FLOW, USER, SERVER, {**tcp(HIGH, 22, SYN), **ANSWERED, "ringfence.tcp.destination_flags": RST | ACK}, (HTTPS, "tcp/22", "unknown", "unproven")),
    "answered, then reset": (FLOW, USER, SERVER, {**tcp(HIGH, 22, SYN), **ANSWERED, "ringfence.tcp.destination_flags": SYN | ACK | RST}, (HTTPS, "tcp/22", "passed", "breached")),
    "answered from a low port": (FLOW, USER, SERVER, {**tcp(80, HIGH, SYN), **ANSWERED}, (HTTPS, "tcp/50000", "passed", "breached")),
    "dropped inline": (FLOW, USER, SERVER, {**tcp(HIGH, 22, SYN), **DROPPED}, (HTTPS, "tcp/22", "blocked", "held")),
    "answered UDP": (FLOW, USER, SERVER, {**udp(HIGH, 53), **ANSWERED}, (HTTPS, "udp/53", "passed", "permitted")),
    "silent UDP": (FLOW, USER, SERVER, {**udp(HIGH, 53), **SILENT}, (HTTPS, "udp/53", "unknown", "unproven")),
    # one-way flows
    "one-way attempt": (FLOW, USER, SERVER, tcp(HIGH, 22, SYN), (HTTPS, "tcp/22", "unknown", "unproven")),
    "one-way, went on": (FLOW, USER, SERVER, tcp(HIGH, 22, SYN | ACK | PSH), (HTTPS, "tcp/22", "passed", "breached")),
    "one-way, next part": (FLOW, USER, SERVER, tcp(HIGH, 22, ACK | PSH, **{"source.packets": 9}), (HTTPS, "tcp/22", "passed", "breached")),
    "one-way ACK scan": (FLOW, USER, SERVER, tcp(HIGH, 22, ACK, **{"source.packets": 1}), (HTTPS, "tcp/22", "unknown", "unproven")),
    "one-way ACK scan with data": (FLOW, USER, SERVER, tcp(HIGH, 22, ACK | PSH, **{"source.packets": 1}), (HTTPS, "tcp/22", "unknown", "unproven")),
    "one-way FIN scan": (FLOW, USER, SERVER, tcp(HIGH, 22, FIN), (HTTPS, "tcp/22", "unknown", "unproven")),
    "one-way null scan": (FLOW, USER, SERVER, tcp(HIGH, 22, 0), (HTTPS, "tcp/22", "unknown", "unproven")),
    "one-way reply": (FLOW, SERVER, USER, tcp(443, HIGH, SYN | ACK | PSH), (HTTPS, "https", "passed", "permitted")),
    "one-way refusal": (FLOW, SERVER, USER, tcp(22, HIGH, RST | ACK), (HTTPS, "tcp/22", "unknown", "unproven")),
    "one-way reply without flags": (FLOW, SERVER, USER, tcp(443, HIGH), (HTTPS, "https", "passed", "permitted")),
    "one-way reply, undeclared port": (FLOW, SERVER, USER, tcp(8080, HIGH, SYN | ACK), (HTTPS, "tcp/8080", "passed", "permitted")),
    "one-way attempt, both ports high": (FLOW, SERVER, USER, tcp(40_000, 49_700, SYN), (BACK, "tcp/49700", "unknown", "unproven")),
    "one-way attempt from a service port": (FLOW, SERVER, USER, tcp(443, HIGH, SYN), (BACK, "tcp/50000", "unknown", "unproven")),
    "bare ACK from a service port": (FLOW, SERVER, USER, tcp(22, HIGH, ACK, **{"source.packets": 1}), (HTTPS, "tcp/22", "unknown", "unproven")),
    "one-way UDP reply": (FLOW, SERVER, USER, udp(53, HIGH), (HTTPS, "udp/53", "passed", "permitted")),
    "one-way UDP attempt": (FLOW, USER, SERVER, udp(HIGH, 53), (HTTPS, "udp/53", "unknown", "unproven")),
    "one-way UDP, both ports high": (FLOW, SERVER, USER, udp(40_000, 49_700), (HTTPS, "udp/40000", "unknown", "unproven")),
    "one-way UDP, equal ports": (FLOW, SERVER, USER, udp(123, 123), (BACK, "udp/123", "unknown", "unproven")),
    "echo request": (FLOW, USER, SERVER, {"network.iana_number": ICMP, "ringfence.icmp.type": 8}, (HTTPS, "icmp", "unknown", "unproven")),
    "echo reply": (FLOW, SERVER, USER, {"network.iana_number": ICMP, "ringfence.icmp.type": 0}, (HTTPS, "icmp", "passed", "permitted")),
    "IPv6 echo reply": (FLOW, SERVER6, USER6, {"network.iana_number": ICMP6, "ringfence.icmp.type": 129}, (HTTPS, "icmpv6", "passed", "permitted")),
    "IPv6 answered": (FLOW, USER6, SERVER6, {**tcp(HIGH, 22, SYN | ACK), **ANSWERED}, (HTTPS, "tcp/22", "passed", "breached")),
    # application records
    "dns answer": (DNS, USER, SERVER, {**udp(HIGH, 53), "dns.response_code": "NXDOMAIN"}, (HTTPS, "udp/53", "passed", "permitted")),
    "dns query": (DNS, USER, SERVER, udp(HIGH, 53), (HTTPS, "udp/53", "unknown", "unproven")),
    "dns answer by its packet": (DNS, SERVER, USER, {**udp(53, HIGH), "dns.response_code": "NOERROR"}, (HTTPS, "udp/53", "passed", "permitted")),
    "http response": (HTTP, USER, SERVER, {**tcp(HIGH, 80), "http.response.status_code": 403}, (HTTPS, "tcp/80", "passed", "breached")),
    "http request": (HTTP, USER, SERVER, tcp(HIGH, 80), (HTTPS, "tcp/80", "unknown", "unproven")),
    "tls hello of a server": (TLS, USER, SERVER, {**tcp(HIGH, 443), "tls.version": "TLS 1.3"}, (HTTPS, "https", "passed", "permitted")),
    "tls hello of a client": (TLS, USER, SERVER, {**tcp(HIGH, 443), "tls.version": "UNDETERMINED"}, (HTTPS, "https", "unknown", "unproven")),
    "tls without protocol number": (TLS, USER, SERVER, {"destination.port": 443, "tls.version": "TLS 1.3"}, (HTTPS, "https", "passed", "permitted")),
    "ssh banner of a server": (SSH, USER, SERVER, {**tcp(HIGH, 22), "ringfence.ssh.server": "OpenSSH_9.9"}, (HTTPS, "tcp/22", "passed", "breached")),
    "ssh banner of a client": (SSH, USER, SERVER, {**tcp(HIGH, 22), "ringfence.ssh.client": "libssh"}, (HTTPS, "tcp/22", "unknown", "unproven")),
    # alerts
    "blocked alert": (ALERT, USER, SERVER, {**tcp(HIGH, 22), "ringfence.ids.action": "blocked"}, (HTTPS, "tcp/22", "blocked", "held")),
    "dropped packet": (ALERT, USER, SERVER, {**tcp(HIGH, 22), "ringfence.ids.verdict": "drop"}, (HTTPS, "tcp/22", "blocked", "held")),
}  # fmt: skip


@pytest.mark.parametrize("case", EVIDENCE)
def test_evidence_proves_what_it_can_and_no_more(case: str) -> None:
    event_class, source, destination, row, expected = EVIDENCE[case]

    assert verdict(event_class, source, destination, row) == expected


NO_TEST: dict[str, tuple[EventClass, str, str, dict[str, Any]]] = {
    "pf match": (PF, USER, SERVER, pf("match", tcp(HIGH, 22, SYN))),
    "pf rdr": (PF, USER, SERVER, pf("rdr", tcp(HIGH, 22, SYN))),
    "pf without action": (PF, USER, SERVER, tcp(HIGH, 22, SYN)),
    "pf blocks a late segment of a reply": (PF, SERVER, USER, pf("block", tcp(443, HIGH, FIN | ACK))),
    "allowed alert": (ALERT, USER, SERVER, {**tcp(HIGH, 22), "ringfence.ids.action": "allowed"}),
    "alert without action": (ALERT, USER, SERVER, tcp(HIGH, 22)),
    "within a segment": (FLOW, USER, "10.1.0.6", {**tcp(HIGH, 22), **ANSWERED}),
    "outside to outside": (FLOW, ABROAD, "192.0.2.2", {**tcp(HIGH, 22), **ANSWERED}),
    "between two that are ambiguous": (FLOW, SHARED, "10.9.0.2", {**tcp(HIGH, 22), **ANSWERED}),
    "a file": (EventClass.FILE, USER, SERVER, tcp(HIGH, 80)),
    "a login": (EventClass.AUTH, USER, SERVER, {"event.outcome": "success"}),
    "a generic event": (EventClass.GENERIC, USER, SERVER, {"source.port": 5}),
}


@pytest.mark.parametrize("case", NO_TEST)
def test_what_proves_nothing_gives_no_test(case: str) -> None:
    event_class, source, destination, row = NO_TEST[case]

    assert crossed(event_class, source, destination, **row) == []


@pytest.mark.parametrize("known", ["source", "destination"])
def test_an_unknown_address_gives_no_test(known: str) -> None:
    assert judged(frames.batch(FLOW, [{f"{known}.ip": frames.v4(USER), **tcp(HIGH, 22), **ANSWERED}])) == []


def test_an_ambiguous_end_is_unproven_whatever_happened() -> None:
    assert verdict(FLOW, USER, SHARED, {**tcp(HIGH, 22), **ANSWERED}) == ("users -> ambiguous", "tcp/22", "passed", "unproven")


def test_a_contest_that_a_vlan_settles_is_judged() -> None:
    assert verdict(FLOW, SHARED, USER, {**tcp(HIGH, 22), **ANSWERED, "network.vlan.id": 91})[0] == "east -> users"


LOSSY = {"ringfence.evidence.lossy": True}


@pytest.mark.parametrize(
    ("row", "expected"),
    [(pf("block", tcp(HIGH, 22, SYN)), "unproven"), (pf("block", tcp(HIGH, 443, SYN)), "unproven"), (pf("pass", tcp(HIGH, 22, SYN)), "breached"), (pf("pass", tcp(HIGH, 443, SYN)), "permitted")],
    ids=["held", "overblocked", "breached", "permitted"],
)  # fmt: skip
def test_while_evidence_is_lost_only_what_passed_is_proven(row: dict[str, Any], expected: str) -> None:
    assert verdict(PF, USER, SERVER, {**row, **LOSSY})[3] == expected


def test_loss_at_one_source_does_not_touch_rows_of_another() -> None:
    row = {**frames.ends(USER, SERVER), **pf("block", tcp(HIGH, 22, SYN))}

    assert [test["ringfence.boundary.verdict"] for test in judged(frames.batch(PF, [{**row, **LOSSY}, row]))] == [
        "unproven",
        "held",
    ]


def test_a_reply_shows_the_initiator_as_source() -> None:
    (test,) = crossed(FLOW, SERVER, USER, **tcp(443, HIGH, SYN | ACK))

    assert [test[f"{side}.{part}"] for side in ("source", "destination") for part in ("ip", "port", "segment.name")] == [
        frames.v4(USER), HIGH, "users", frames.v4(SERVER), 443, "servers",
    ]  # fmt: skip


def test_a_reply_over_ipv6_shows_the_initiator_as_source() -> None:
    (test,) = crossed(FLOW, SERVER6, USER6, **tcp(443, HIGH, SYN | ACK))

    assert (test["source.ip6"], test["destination.ip6"]) == (frames.v6(USER6), frames.v6(SERVER6))


def test_a_reply_of_which_only_one_port_is_known_is_turned_round_completely() -> None:
    (test,) = crossed(FLOW, SERVER, USER, **{"network.iana_number": TCP, "source.port": 443})

    assert (test["source.port"], test["destination.port"]) == (None, 443)


def test_replies_and_attempts_of_one_batch_are_judged_alike() -> None:
    rows = [
        {**frames.ends(SERVER, USER), **tcp(443, HIGH, SYN | ACK)},
        {**frames.ends(USER, SERVER), **tcp(HIGH, 443, SYN | ACK)},
    ]

    one, two = judged(frames.batch(FLOW, rows))

    differ = {name for name in one if one[name] != two[name]}
    assert differ == {"@timestamp", "ringfence.event.position", "ringfence.evidence.position"}


def test_a_test_names_its_evidence() -> None:
    (test,) = judged(
        frames.batch(FLOW, [{**frames.ends(USER, SERVER), **tcp(HIGH, 22), **ANSWERED, "ringfence.event.position": 77}])
    )

    assert {name: test[f"ringfence.evidence.{name}"] for name in ("source", "position", "class", "module")} == {
        "source": frames.IDENTITY,
        "position": 77,
        "class": "flow",
        "module": "fixture",
    }


def test_the_id_of_a_test_is_not_that_of_its_evidence() -> None:
    (test,) = crossed(FLOW, USER, SERVER, **tcp(HIGH, 22), **ANSWERED)

    assert test["ringfence.event.source"] != test["ringfence.evidence.source"]


def test_the_same_evidence_gives_the_same_test() -> None:
    batch = frames.batch(FLOW, [{**frames.ends(USER, SERVER), **tcp(HIGH, 22), **ANSWERED}])

    assert judged(batch) == judged(batch)


def test_a_test_has_the_whole_segment_of_each_end() -> None:
    (test,) = crossed(FLOW, USER, SERVER, **tcp(HIGH, 22), **ANSWERED)

    assert [test[f"destination.segment.{part}"] for part in ("id", "name", "role", "tenant", "site")] == [
        "srv-1",
        "servers",
        "servers",
        "b",
        "hq",
    ]


def test_what_pf_said_is_kept_with_the_test() -> None:
    (test,) = crossed(
        PF,
        USER,
        SERVER,
        **pf("block", tcp(HIGH, 22, SYN)),
        **{"ringfence.pf.rule": 7, "rule.ruleset": "tenant1", "network.inner.vlan.id": 5},
    )

    assert (test["ringfence.pf.rule"], test["rule.ruleset"], test["network.inner.vlan.id"]) == (7, "tenant1", 5)


def test_an_unknown_protocol_is_not_made_up() -> None:
    (test,) = crossed(PF, USER, SERVER, **pf("pass", {}))

    assert test["network.iana_number"] is None


def test_the_batch_itself_passes_unchanged() -> None:
    batch = WHERE.process(frames.batch(FLOW, [{**frames.ends(USER, SERVER), **tcp(HIGH, 22), **ANSWERED}]), Micros(0)).batch

    assert JUDGE.process(batch, Micros(0)).batch is batch


def test_the_header_of_the_tests_counts_them() -> None:
    rows = [
        {**frames.ends(USER, SERVER), **tcp(HIGH, 22), **ANSWERED},
        {**frames.ends(USER, USER), **tcp(HIGH, 22), **ANSWERED},
    ]
    batch = WHERE.process(frames.batch(FLOW, rows), Micros(0)).batch

    header = JUDGE.process(batch, Micros(0)).outputs[bus.BOUNDARY][0].header

    assert (header.event_class, header.rows, header.time_min_us) == (EventClass.BOUNDARY, 1, frames.AT_US)


@pytest.mark.parametrize("event_class", sorted(KIND.event_classes))
def test_an_empty_batch_gives_no_test(event_class: EventClass) -> None:
    batch = frames.batch(event_class, [frames.ends(USER, SERVER)])

    assert judged(Batch(batch.header, batch.frame.clear())) == []


@pytest.mark.parametrize("event_class", sorted(KIND.event_classes))
def test_addresses_alone_never_prove_that_something_passed(event_class: EventClass) -> None:
    assert {test["ringfence.boundary.outcome"] for test in crossed(event_class, USER, SERVER)} <= {"unknown"}


def test_a_batch_without_segment_codes_gives_no_test() -> None:
    assert JUDGE.process(frames.batch(FLOW, [{"source.port": 5}]), Micros(0)).outputs == {}


def test_the_entry_point_builds_the_processor() -> None:
    assert isinstance(KIND.build(KIND.settings(), BuildContext("boundaries", TOPOLOGY)), Boundaries)


HOSTS = st.sampled_from([USER, SERVER, THING, SHARED, ABROAD])
USED = (
    "source.port", "destination.port", "network.iana_number", "network.vlan.id", "ringfence.pf.action", "ringfence.evidence.lossy", "source.packets",
    "destination.packets", "ringfence.tcp.source_flags", "ringfence.tcp.destination_flags", "ringfence.flow.action", "ringfence.icmp.type",
    "ringfence.ids.action", "ringfence.ids.verdict", "dns.response_code", "http.response.status_code", "tls.version", "ringfence.ssh.server", "source.ip6",
)  # fmt: skip


@st.composite
def crossings(draw: st.DrawFn) -> Batch:
    """Rows of any evidence between known segments."""
    batch = draw(st.sampled_from(sorted(KIND.event_classes)).flatmap(lambda event_class: frames.batches(event_class, USED)))
    count = batch.frame.height
    pairs = draw(st.lists(st.tuples(st.none() | HOSTS, HOSTS), min_size=count, max_size=count))
    action = draw(st.lists(st.sampled_from(["pass", "block", "match"]), min_size=count, max_size=count))
    rows = []
    for row, (source, destination), word in zip(batch.frame.to_dicts(), pairs, action, strict=True):
        row["source.ip"] = frames.v4(source) if source else None
        row["destination.ip"] = frames.v4(destination)
        if "ringfence.pf.action" in row:
            row["ringfence.pf.action"] = word
        rows.append(row)
    return frames.batch(batch.header.event_class, rows) if rows else batch


@given(crossings())
def test_there_are_never_more_tests_than_rows(batch: Batch) -> None:
    assert len(judged(batch)) <= batch.frame.height


@given(crossings())
def test_every_verdict_follows_from_its_intent_and_outcome(batch: Batch) -> None:
    for test in judged(batch):
        intent, outcome, found = (test[f"ringfence.boundary.{name}"] for name in ("intent", "outcome", "verdict"))
        assert found in (TABLE[intent, outcome], "unproven")


@given(crossings())
def test_a_test_never_has_one_segment_at_both_ends(batch: Batch) -> None:
    assert all(test["source.segment.name"] != test["destination.segment.name"] for test in judged(batch))


@given(crossings())
def test_rows_are_judged_alike_alone_and_together(batch: Batch) -> None:
    columns = {name: batch.frame[name] for name in batch.frame.columns}
    alone = [
        test
        for row in range(batch.frame.height)
        for test in judged(Batch(batch.header, batch.frame.select(series.slice(row, 1) for series in columns.values())))
    ]

    together = judged(batch)

    verdicts = [
        (test["ringfence.evidence.position"], test["ringfence.boundary.id"], test["ringfence.boundary.verdict"])
        for test in together
    ]
    assert verdicts == [
        (test["ringfence.evidence.position"], test["ringfence.boundary.id"], test["ringfence.boundary.verdict"])
        for test in alone
    ]


@pytest.mark.parametrize(
    ("action", "outcomes"), [("block", ["blocked"]), ("pass", ["passed"]), ("unknown", []), (None, ["unknown"])]
)
def test_a_packet_filter_is_judged_by_what_it_did(action: str | None, outcomes: list[str]) -> None:
    tests = crossed(FLOW, USER, SERVER, **tcp(HIGH, 443, SYN), **{"ringfence.firewall.action": action})

    assert [test["ringfence.boundary.outcome"] for test in tests] == outcomes


def test_a_dropped_segment_of_a_forgotten_state_is_no_test() -> None:
    assert crossed(FLOW, SERVER, USER, **tcp(443, HIGH, FIN | ACK), **{"ringfence.firewall.action": "block"}) == []


def test_a_filter_and_an_exporter_in_one_batch_are_judged_each_by_its_own_rule() -> None:
    row = {**frames.ends(SERVER, USER), **tcp(443, HIGH, FIN | ACK)}
    tests = judged(frames.batch(FLOW, [{**row, "ringfence.firewall.action": "pass"}, row]))

    assert [test["ringfence.boundary.outcome"] for test in tests] == ["passed", "passed"]


# several observers of one crossing


def reported(judge: Boundaries, event_class: EventClass, *rows: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """The tests that a batch makes, and how many rows were merged."""
    processed = judge.process(WHERE.process(frames.batch(event_class, rows), Micros(0)).batch, Micros(0))
    made = [test for batch in processed.outputs.get(bus.BOUNDARY, ()) for test in batch.frame.to_dicts()]
    return made, processed.merged


def seen_by(observer: str, row: dict[str, Any], source: str = USER, destination: str = SERVER) -> dict[str, Any]:
    return {"observer.name": observer, "@timestamp": frames.AT_US, **frames.ends(source, destination), **row}


SSH_PASSED = {**tcp(HIGH, 22, SYN | ACK | PSH), "source.packets": 9}


def test_a_flow_seen_at_two_exporters_is_one_crossing() -> None:
    (test,), merged = reported(Boundaries(TOPOLOGY), FLOW, seen_by("r1", SSH_PASSED), seen_by("r2", SSH_PASSED))

    assert (test["observer.name"], test["ringfence.boundary.verdict"], merged) == ("r1", "breached", 1)


def test_whole_batches_are_merged_and_passed_on() -> None:
    judge = Boundaries(TOPOLOGY)
    reported(judge, FLOW, seen_by("r1", SSH_PASSED))
    batch = WHERE.process(frames.batch(FLOW, [seen_by("r2", SSH_PASSED)]), Micros(0)).batch

    processed = judge.process(batch, Micros(0))

    assert (processed.batch.frame.height, processed.outputs, processed.merged) == (1, {}, 1)


def test_a_firewall_a_router_and_the_reply_that_a_second_router_saw_tell_of_one_crossing() -> None:
    judge = Boundaries(TOPOLOGY)
    logged = reported(judge, PF, seen_by("fw", pf("pass", tcp(HIGH, 22, SYN))))
    flow = reported(judge, FLOW, seen_by("r1", SSH_PASSED))
    reply = reported(judge, FLOW, seen_by("r2", {**tcp(22, HIGH, SYN | ACK), "source.packets": 5}, SERVER, USER))

    assert [(len(tests), merged) for tests, merged in (logged, flow, reply)] == [(1, 0), (0, 1), (0, 1)]


OTHERS: dict[str, dict[str, Any]] = {
    "another outcome": {**DROPPED},
    "another port": tcp(HIGH, 23, SYN | ACK),
    "another port of the initiator": tcp(HIGH + 1, 22, SYN | ACK),
    "another protocol": {**udp(HIGH, 22), "destination.packets": 1},
    "another host": frames.ends(USER, "10.2.0.10"),
    "another time": {"@timestamp": frames.AT_US + 61_000_000},
    "another beginning": {"event.start": frames.AT_US - 61_000_000},
    "another kind of ICMP": {"network.iana_number": ICMP, "ringfence.icmp.type": 13, "destination.packets": 1},
    "another family": {"source.ip": None, "destination.ip": None, **frames.ends(USER6, SERVER6)},
    "the same observer": {"observer.name": "r1"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_differs_is_a_test_of_its_own(name: str) -> None:
    first, other = seen_by("r1", SSH_PASSED), {**seen_by("r2", SSH_PASSED), **OTHERS[name]}

    tests, merged = reported(Boundaries(TOPOLOGY), FLOW, first, other)

    assert (len(tests), merged) == (2, 0)


def test_a_firewall_that_blocked_what_a_router_saw_pass_is_not_merged_away() -> None:
    judge = Boundaries(TOPOLOGY)
    reported(judge, FLOW, seen_by("r1", SSH_PASSED))

    (test,), merged = reported(judge, PF, seen_by("fw", pf("block", tcp(HIGH, 22, SYN))))

    assert (test["ringfence.boundary.outcome"], test["ringfence.boundary.verdict"], merged) == ("blocked", "held", 0)


def test_a_verdict_that_a_loss_made_unproven_does_not_hide_the_proven_one() -> None:
    lossy = {**DROPPED, **tcp(HIGH, 22), "ringfence.evidence.lossy": True}

    tests, merged = reported(
        Boundaries(TOPOLOGY), FLOW, seen_by("r1", lossy), seen_by("r2", {**lossy, "ringfence.evidence.lossy": False})
    )

    assert ([test["ringfence.boundary.verdict"] for test in tests], merged) == (["unproven", "held"], 0)


def test_ambiguous_ends_may_be_several_hosts_and_are_never_merged() -> None:
    row = {**tcp(HIGH, 22, SYN | ACK)}

    tests, merged = reported(
        Boundaries(TOPOLOGY), FLOW, *(seen_by(name, row, USER, SHARED) for name in ("r1", "r2")), seen_by("r1", row)
    )

    assert (len(tests), merged) == (3, 0)


@pytest.mark.parametrize(
    "row",
    [
        {**udp(HIGH, 53), "destination.packets": 1},
        {"network.iana_number": ICMP, "ringfence.icmp.type": 8, "ringfence.icmp.code": 0, "destination.packets": 1},
        {"network.iana_number": 47},
    ],
)
def test_every_protocol_can_be_merged(row: dict[str, Any]) -> None:
    _, merged = reported(Boundaries(TOPOLOGY), FLOW, seen_by("r1", row), seen_by("r2", row))

    assert merged == 1


def test_an_echo_and_its_reply_are_one_crossing() -> None:
    echo = {"network.iana_number": ICMP, "ringfence.icmp.code": 0}
    there = seen_by("fw", pf("pass", {**echo, "ringfence.icmp.type": 8}))
    back = seen_by("fw2", pf("pass", {**echo, "ringfence.icmp.type": 0}), SERVER, USER)

    assert reported(Boundaries(TOPOLOGY), PF, there, back)[1] == 1


def test_ipv6_is_merged_whatever_else_is_in_the_batch() -> None:
    judge = Boundaries(TOPOLOGY)
    reported(judge, FLOW, seen_by("r1", SSH_PASSED, USER6, SERVER6), seen_by("r1", SSH_PASSED))

    assert reported(judge, FLOW, seen_by("r2", SSH_PASSED, USER6, SERVER6)) == ([], 1)
    assert reported(judge, FLOW, seen_by("r2", SSH_PASSED)) == ([], 1)


def test_records_that_do_not_name_their_observer_are_those_of_their_collector() -> None:
    judge = Boundaries(TOPOLOGY)
    nameless = {name: value for name, value in seen_by("", SSH_PASSED).items() if name != "observer.name"}
    reported(judge, FLOW, nameless)

    assert reported(judge, FLOW, nameless)[1] == 0
    assert reported(judge, FLOW, seen_by("r2", SSH_PASSED))[1] == 1


def test_what_was_reported_is_known_after_a_restart() -> None:
    before, after = Boundaries(TOPOLOGY), Boundaries(TOPOLOGY)
    reported(before, FLOW, seen_by("r1", SSH_PASSED))

    after.restore(before.snapshot())

    assert reported(after, FLOW, seen_by("r2", SSH_PASSED)) == ([], 1)


def test_an_ssh_connection_that_an_ids_logs_as_ssh_and_as_flow_is_one_crossing() -> None:
    judge = Boundaries(TOPOLOGY)
    ssh = seen_by("ids", {**tcp(HIGH, 22), "ringfence.ssh.server": "OpenSSH"})

    as_ssh, as_flow = reported(judge, SSH, ssh), reported(judge, FLOW, seen_by("ids", {**tcp(HIGH, 22), **ANSWERED}))

    assert [(len(tests), merged) for tests, merged in (as_ssh, as_flow)] == [(1, 0), (0, 1)]


def test_both_records_of_a_one_way_exporter_are_one_crossing_when_both_prove_it() -> None:
    there = {**tcp(HIGH, 22, SYN | ACK | PSH), "source.packets": 9}
    back = {**tcp(22, HIGH, SYN | ACK | PSH), "source.packets": 9}

    tests, merged = reported(
        Boundaries(TOPOLOGY),
        FLOW,
        *(seen for name in ("r1", "r2") for seen in (seen_by(name, there), seen_by(name, back, SERVER, USER))),
    )

    assert (len(tests), merged) == (1, 3)


def test_blocks_in_which_some_rows_name_no_observer() -> None:
    judge = Boundaries(TOPOLOGY)
    rows = [seen_by("r1", tcp(HIGH, 22, SYN | ACK)), {**seen_by("r1", tcp(HIGH, 23, SYN | ACK)), "observer.name": None}]
    reported(judge, FLOW, *rows)

    assert reported(judge, FLOW, *rows)[1] == 0
    assert (
        reported(judge, FLOW, *({**row, "observer.name": name} for row, name in zip(rows, ("r2", "r3"), strict=True)))[1] == 2
    )


def test_a_packet_filter_decides_about_each_direction_anew() -> None:
    there, back = seen_by("fw", tcp(HIGH, 22, SYN)), seen_by("fw", tcp(22, HIGH, SYN | ACK), SERVER, USER)

    as_pf = reported(Boundaries(TOPOLOGY), PF, *(pf("block", row) for row in (there, back)))
    as_flow = reported(Boundaries(TOPOLOGY), FLOW, *({"ringfence.firewall.action": "block", **row} for row in (there, back)))

    assert [(len(tests), merged) for tests, merged in (as_pf, as_flow)] == [(2, 0), (2, 0)]
