"""Judges every crossing between two segments: intent against outcome gives the verdict.

A row of class pf, flow, dns, http, tls, ssh or alert whose ends lie in two segments is one boundary test, unless another
observer, or this one by another class of records or the reply, has just reported the same crossing with the same outcome and
verdict (`ringfence/crossings.py`). Its outcome is read from what that kind of sensor can prove:

- pf: `pass` passed, `block` blocked; match, rdr and the like decide nothing and give no test.
  A blocked TCP segment in the reply direction that is not a SYN-ACK gives none either: pf had forgotten the state.
- flow: passed when the responder answered: packets back, or, in one-way records, SYN and ACK or pushed data from the
  initiator (it had an answer) or a record that comes from a service port: the reply. Where neither port is a service the
  lower one is taken for it, but that guess proves nothing by itself. Blocked when an inline sensor dropped the flow. An
  attempt without an answer is unknown: the exporter cannot tell a drop from silence. Where a packet filter says what it
  did with a packet (`ringfence.firewall.action`), that decides as it does for pf, and unknown gives no test.
- dns, http, tls, ssh: passed when the record holds the server's side; unknown when it only holds the client's.
- alert: blocked when the IDS dropped the packet. `allowed` proves nothing (Suricata says so for drop rules in IDS mode
  too), so it gives no test: the flow record of the same connection does.

The initiator is the source, except where ports and flags show that a one-way record is the reply: then the ends are
swapped, so that an answer from a server is never judged as an attempt by it. A SYN without ACK is never a reply.

A test whose port or protocol is not known (fragments, captures that were cut) is unproven, unless the intent is the same
for all that it may have been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from ringfence import bus
from ringfence.batch import Batch, EventClass, Header, Micros
from ringfence.codec import time_span
from ringfence.component import BuildContext, Processed, Status
from ringfence.crossings import Crossings, mixed
from ringfence.intents import INTENTS, IntentTable
from ringfence.schema import build_frame
from ringfence.segments import AMBIGUOUS_CODE, SEGMENT_PARTS, UNKNOWN_CODE, SegmentMap
from ringfence.topology import Topology

Flags = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Outcomes = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]

BLOCKED, PASSED, UNDECIDED, NO_TEST = 0, 1, 2, 3
OUTCOMES = ("blocked", "passed", "unknown")
VERDICTS = ("held", "breached", "permitted", "overblocked", "undeclared", "unproven")

_FIN, _SYN, _RST, _PSH, _ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_GOING_ON_PACKETS = 3
"""A one-way TCP record without SYN is the next part of a long connection if it pushed data in this many packets."""
_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
_ECHO_REPLY, _ECHO_REPLY6 = 0, 129
_ECHO_REQUEST, _ECHO_REQUEST6 = 8, 128
_DNS_PORT = 53
_VERDICT_TABLE = np.array(
    [  # rows: intent (undeclared, deny, allow); columns: outcome (blocked, passed, unknown)
        [VERDICTS.index("unproven"), VERDICTS.index("undeclared"), VERDICTS.index("unproven")],
        [VERDICTS.index("held"), VERDICTS.index("breached"), VERDICTS.index("unproven")],
        [VERDICTS.index("overblocked"), VERDICTS.index("permitted"), VERDICTS.index("unproven")],
    ],
    np.int8,
)
_COPIED = (
    "@timestamp", "observer.name", "network.iana_number", "network.protocol", "network.community_id", "network.vlan.id", "network.inner.vlan.id",
    "ringfence.vxlan.vni", "observer.ingress.interface.name", "observer.egress.interface.name",
    "observer.ingress.interface.id", "observer.egress.interface.id", "ringfence.pf.action", "ringfence.pf.reason",
    "ringfence.pf.direction", "ringfence.pf.rule", "ringfence.pf.subrule", "rule.ruleset", "rule.id",
    "ringfence.firewall.action", "ringfence.firewall.rule",
)  # fmt: skip
_ENDS = ("ip", "ip6", "port")


class Replies(NamedTuple):
    """Rows that are the answer to a connection which the destination began, and those of them that this is sure of."""

    swapped: Mask
    sure: Mask

    def only(self, kept: Mask) -> Replies:
        """The same for some of the rows."""
        return Replies(self.swapped[kept], self.sure[kept])


class Boundaries:
    """Makes the boundary tests of a batch that already has segment codes; remembers who reported which crossing."""

    def __init__(self, topology: Topology) -> None:
        self._map = SegmentMap(topology)
        self._intents = IntentTable(topology, self._map)
        self._crossings = Crossings()

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Pass the batch on as it is, with one boundary batch beside it when any row crosses."""
        read_outcome = _OUTCOME_OF.get(batch.header.event_class)
        if read_outcome is None or "source.segment.code" not in batch.frame.columns:
            return Processed(batch)
        source = batch.frame["source.segment.code"].to_numpy()
        destination = batch.frame["destination.segment.code"].to_numpy()
        crosses = (source != destination) & (source != UNKNOWN_CODE) & (destination != UNKNOWN_CODE)
        crossing = batch.frame.filter(pl.Series(crosses)) if not crosses.all() else batch.frame
        if not crossing.height:
            return Processed(batch)
        replies = replies_of(crossing, batch.header.event_class, self._intents)
        outcome = read_outcome(crossing, replies)
        tested = outcome != NO_TEST
        if not tested.all():
            crossing, replies, outcome = crossing.filter(pl.Series(tested)), replies.only(tested), outcome[tested]
            if not crossing.height:
                return Processed(batch)
        forgotten = self._crossings.forgotten
        frame = self._judge(crossing, replies, outcome, batch)
        merged, forgotten = crossing.height - frame.height, self._crossings.forgotten - forgotten
        if not frame.height:
            return Processed(batch, merged=merged, forgotten=forgotten)
        low, high = time_span(frame)
        header = replace(batch.header, event_class=EventClass.BOUNDARY, rows=frame.height, time_min_us=low, time_max_us=high)
        return Processed(batch, {bus.BOUNDARY: [Batch(header, frame)]}, merged, forgotten)

    def snapshot(self) -> bytes:
        """The latest crossings."""
        return self._crossings.snapshot()

    def restore(self, state: bytes) -> None:
        """Go on with the crossings of a snapshot."""
        self._crossings.restore(state)

    def _judge(self, crossing: pl.DataFrame, replies: Replies, outcome: Outcomes, batch: Batch) -> pl.DataFrame:
        columns = oriented(crossing, replies.swapped)
        source, destination = columns.pop("source.code"), columns.pop("destination.code")
        protocol = _protocol(crossing, batch.header.event_class)
        port = _ports(columns.get("destination.port"), crossing.height)
        intent = self._intents.ask(source, destination, protocol, port)
        verdict = _VERDICT_TABLE[intent, outcome]
        verdict[_ambiguous(source, destination)] = VERDICTS.index("unproven")
        known = _protocol_known(crossing, batch.header.event_class)
        verdict[~self._intents.is_certain(source, destination, protocol, port, known)] = VERDICTS.index("unproven")
        if "ringfence.evidence.lossy" in crossing.columns:
            # while records are lost, "nothing passed" is not proven; that something passed stays proven
            lossy = crossing["ringfence.evidence.lossy"].fill_null(False).to_numpy()
            verdict[lossy & (outcome == BLOCKED)] = VERDICTS.index("unproven")
        # two segments may share an address, so where it is ambiguous two records may tell of two crossings
        kind = np.where(_ambiguous(source, destination), -1, (outcome.astype(np.int64) << 8) | verdict)
        merged = self._merged(
            crossing, columns, kind, (source, destination, protocol, port), _observers(crossing, replies.swapped, batch.header)
        )
        count = crossing.height
        columns.update({name: crossing[name] for name in _COPIED if name in crossing.columns})
        if batch.header.event_class is EventClass.FLOW:
            columns["ringfence.evidence.silent"] = _true_or_null((outcome == UNDECIDED) & silent(crossing, replies))
        columns.update(self._named(source, destination))
        columns.update(
            {
                "network.iana_number": pl.select(pl.when(pl.Series(known)).then(pl.Series(protocol))).to_series(),
                "ringfence.event.source": pl.Series(crossing["ringfence.event.source"].to_numpy() ^ _BOUNDARY_ID),
                "ringfence.event.position": crossing["ringfence.event.position"],
                "ringfence.evidence.source": crossing["ringfence.event.source"],
                "ringfence.evidence.position": crossing["ringfence.event.position"],
                "ringfence.evidence.class": _same(str(batch.header.event_class), count),
                "ringfence.evidence.module": _same(batch.header.module, count),
                "ringfence.boundary.intent": _words(INTENTS, intent),
                "ringfence.boundary.outcome": _words(OUTCOMES, outcome),
                "ringfence.boundary.verdict": _words(VERDICTS, verdict),
                "ringfence.boundary.origin": _same("observed", count),
                "ringfence.boundary.service": self._services(protocol, port, known),
            }
        )
        frame = build_frame(EventClass.BOUNDARY, columns)
        return frame.filter(pl.Series(~merged)) if merged.any() else frame

    def _merged(
        self,
        crossing: pl.DataFrame,
        ends: Mapping[str, Any],
        kind: Ints,
        where: tuple[npt.NDArray[Any], ...],
        observer: npt.NDArray[np.uint64],
    ) -> Mask:
        """Which rows tell of a crossing, with the same outcome and verdict, that was reported otherwise before."""
        source, destination, protocol, port = (part.astype(np.int64) for part in where)
        sport = _ports(ends.get("source.port"), crossing.height).astype(np.int64)
        key = mixed(
            address_numbers(ends, "source"),
            address_numbers(ends, "destination"),
            (sport + 1) | (port + 1) << 20 | protocol << 40,
            source | destination << 16 | kind << 32 | _icmp_kind(crossing) << 44,
        )
        at_us = _began(crossing)
        known = np.flatnonzero(kind >= 0)
        if len(known) == len(key):
            return self._crossings.merged(key, observer, at_us)
        merged = np.zeros(len(key), np.bool_)
        merged[known] = self._crossings.merged(key[known], observer[known], at_us[known])
        return merged

    def _named(self, source: npt.NDArray[np.int32], destination: npt.NDArray[np.int32]) -> dict[str, pl.Series]:
        ends = (("source", source.astype(np.uint16)), ("destination", destination.astype(np.uint16)))
        columns = {f"{side}.segment.{part}": self._map.part(part, codes) for side, codes in ends for part in SEGMENT_PARTS}
        columns["ringfence.boundary.id"] = self._pairs(source, destination)
        return columns

    def _pairs(self, source: npt.NDArray[np.int32], destination: npt.NDArray[np.int32]) -> pl.Series:
        """`from -> to`: there are few different pairs, so each is put together once."""
        names, count = self._map.names, len(self._map.names)
        distinct, index = np.unique(source.astype(np.int64) * count + destination, return_inverse=True)
        texts = [f"{names[pair // count]} -> {names[pair % count]}" for pair in distinct.tolist()]
        return pl.Series(texts, dtype=pl.String)[pl.Series(index.astype(np.uint32))]

    def _services(self, protocol: Flags, port: npt.NDArray[np.int32], known: Mask) -> pl.Series:
        keys = np.where(known, protocol.astype(np.int64) * 131_072 + port + 1, -1)
        distinct, index = np.unique(keys, return_inverse=True)
        names = [self._intents.service(key >> 17, (key & 0x1FFFF) - 1) if key >= 0 else "unknown" for key in distinct.tolist()]
        return pl.Series(names, dtype=pl.String)[pl.Series(index.astype(np.uint32))]


_BOUNDARY_ID = np.uint64(0xB0_0D_A2_7E_57_00_00_01)
"""Changes the stream half of the evidence's id into the id of the test made from it."""
_TELLERS = {event_class: np.uint64(number) << np.uint64(32) for number, event_class in enumerate(EventClass)}
_REPLY = np.uint64(40)
"""Tell records of one observer apart, by class and direction, above the 32 bits that `Crossings` leaves out."""


def replies_of(frame: pl.DataFrame, event_class: EventClass, intents: IntentTable) -> Replies:
    """Rows of one-way evidence that are the answer to a connection which the destination began."""
    none = np.zeros(frame.height, np.bool_)
    if event_class not in (EventClass.PF, EventClass.FLOW, EventClass.DNS):
        return Replies(none, none)
    protocol = _protocol(frame, event_class)
    source, destination = (_ports(_get(frame, f"{side}.port"), frame.height) for side in ("source", "destination"))
    if event_class is EventClass.DNS:
        from_server = _is((source == _DNS_PORT) & (destination != _DNS_PORT))
        return Replies(from_server, from_server)
    flags = _flags(frame, "ringfence.tcp.source_flags")
    tcp = protocol == _TCP
    from_service, to_service = intents.is_service(protocol, source), intents.is_service(protocol, destination)
    from_lower = (from_service == to_service) & (source < destination) & (source >= 0)
    by_echo = _echo_reply(frame, protocol)
    # a filter logs the first packet of a state, which of TCP is a SYN; the others are logged by `log (all)` of pf
    later = tcp & ((flags & _SYN) == 0) & ((flags & (_ACK | _RST | _FIN)) != 0)
    opened = _is((tcp & _opened(flags)) | by_echo)
    filtered = Replies(_is(opened | (later & ((from_service & ~to_service) | from_lower))), opened)
    if event_class is EventClass.PF:
        return filtered
    one_way = ~none if "destination.packets" not in frame.columns else frame["destination.packets"].is_null().to_numpy()
    possible = one_way & np.isin(protocol, (_TCP, _UDP)) & ~(tcp & ((flags & (_SYN | _ACK)) == _SYN))
    sure = _is((possible & from_service & ~to_service) | (one_way & by_echo))
    flows = Replies(_is(sure | (possible & from_lower)), sure)
    action = _get(frame, "ringfence.firewall.action")
    if action is None:
        return flows
    decided = action.is_not_null().to_numpy()
    return Replies(*(np.where(decided, of_filter, of_flow) for of_filter, of_flow in zip(filtered, flows, strict=True)))


def oriented(frame: pl.DataFrame, swapped: Mask) -> dict[str, Any]:
    """Both ends with the initiator as source; `source.code` and `destination.code` as numpy."""
    codes = [frame[f"{side}.segment.code"].to_numpy() for side in ("source", "destination")]
    columns: dict[str, Any] = {
        "source.code": np.where(swapped, codes[1], codes[0]),
        "destination.code": np.where(swapped, codes[0], codes[1]),
    }
    for end in _ENDS:
        one, two = _get(frame, f"source.{end}"), _get(frame, f"destination.{end}")
        if swapped.any():
            one, two = _exchange(one, two, swapped), _exchange(two, one, swapped)
        columns.update(
            {name: values for name, values in ((f"source.{end}", one), (f"destination.{end}", two)) if values is not None}
        )
    return columns


def _ambiguous(source: npt.NDArray[Any], destination: npt.NDArray[Any]) -> Mask:
    return _is((source == AMBIGUOUS_CODE) | (destination == AMBIGUOUS_CODE))


def address_numbers(ends: Mapping[str, Any], side: str) -> npt.NDArray[Any]:
    """An address as a number: of IPv4 itself, of IPv6 a hash."""
    v4, v6 = ends.get(f"{side}.ip"), ends.get(f"{side}.ip6")
    if v6 is None or v6.null_count() == len(v6):
        return np.zeros(0 if v6 is None else len(v6), np.uint64) if v4 is None else _filled(v4, 0)
    hashes = v6.hash().to_numpy()
    return hashes if v4 is None else np.where(v4.is_not_null().to_numpy(), _filled(v4, 0), hashes)


def _icmp_kind(frame: pl.DataFrame) -> Ints | int:
    """Type and code of ICMP, plus one; those of an echo reply are those of its request."""
    column, code = _get(frame, "ringfence.icmp.type"), _get(frame, "ringfence.icmp.code")
    if column is None or column.null_count() == len(column):
        return 0
    kind = _filled(column, 255).astype(np.int64)
    kind[kind == _ECHO_REPLY] = _ECHO_REQUEST
    kind[kind == _ECHO_REPLY6] = _ECHO_REQUEST6
    joined = (kind << 8 | (0 if code is None else _filled(code, 255).astype(np.int64))) + 1
    told: Ints = np.where(column.is_not_null().to_numpy(), joined, 0)
    return told


def _observers(frame: pl.DataFrame, swapped: Mask, header: Header) -> npt.NDArray[np.uint64]:
    """A number for who tells each row: its observer by this class of records, or where it names none, its collector.

    Of an exporter the records of both directions count as two tellers; a packet filter decides about each packet anew.
    """
    teller = _TELLERS[header.event_class]
    names = _get(frame, "observer.name")
    if names is None or names.null_count():
        told = np.full(frame.height, pl.Series([header.collector]).hash()[0], np.uint64)
        if names is not None:
            told = np.where(names.is_not_null().to_numpy(), names.hash().to_numpy() ^ teller, told)
    elif (names == names[0]).all():  # comparing is cheaper than hashing, and most blocks are of one observer
        told = np.full(len(names), names[:1].hash()[0], np.uint64) ^ teller
    else:
        told = names.hash().to_numpy() ^ teller
    if header.event_class is EventClass.FLOW and names is not None and swapped.any():
        action = _get(frame, "ringfence.firewall.action")
        replies = swapped & names.is_not_null().to_numpy()
        told ^= (replies if action is None else replies & action.is_null().to_numpy()).astype(np.uint64) << _REPLY
    return told


def _began(frame: pl.DataFrame) -> Ints:
    """When each crossing began, as far as its record tells."""
    at_us: Ints = frame["@timestamp"].to_numpy()
    start = _get(frame, "event.start")
    if start is None:
        return at_us
    return start.to_numpy() if not start.null_count() else np.where(start.is_not_null().to_numpy(), _filled(start, 0), at_us)


def _exchange(one: pl.Series | None, two: pl.Series | None, swapped: Mask) -> pl.Series | None:
    """`one`, with the values of `two` where it is swapped; a column that the frame lacks counts as nulls."""
    if one is None and two is None:
        return None
    return pl.select(pl.when(pl.Series(swapped)).then(two).otherwise(one)).to_series()


def _pf_outcome(frame: pl.DataFrame, replies: Replies) -> Outcomes:
    outcome = np.full(frame.height, NO_TEST, np.int8)
    if "ringfence.pf.action" not in frame.columns:
        return outcome
    action = frame["ringfence.pf.action"]
    outcome[(action == "pass").fill_null(False).to_numpy()] = PASSED
    outcome[(action == "block").fill_null(False).to_numpy() & (~replies.swapped | replies.sure)] = BLOCKED
    return outcome


def flow_outcome(frame: pl.DataFrame, replies: Replies) -> Outcomes:
    """What flows prove, as the head of this page says."""
    swapped = replies.swapped
    protocol = _protocol(frame, EventClass.FLOW)
    flags = _flags(frame, "ringfence.tcp.source_flags")
    back = (
        _filled(frame["destination.packets"], 0) if "destination.packets" in frame.columns else np.zeros(frame.height, np.int64)
    )
    back_flags = _flags(frame, "ringfence.tcp.destination_flags")
    tcp = protocol == _TCP
    # nothing but RST came back: a refusal, by the host or by a firewall in its name
    refused = tcp & _only_reset(np.where(swapped, flags, back_flags))
    sent = _filled(frame["source.packets"], 0) if "source.packets" in frame.columns else np.zeros(frame.height, np.int64)
    opened = _opened(flags)
    going_on = ((flags & (_SYN | _ACK)) == _ACK) & ((flags & _PSH) != 0) & (sent >= _GOING_ON_PACKETS)
    heard = tcp & (opened | going_on)
    # a bare ACK or two may be a probe from a service port
    bare = tcp & (flags != 0) & ((flags & (_SYN | _PSH | _FIN)) == 0) & (sent < _GOING_ON_PACKETS)
    replied = (back > 0) | (replies.sure & ~bare)
    outcome = np.where((replied | heard) & ~refused, PASSED, UNDECIDED).astype(np.int8)
    if "ringfence.flow.action" in frame.columns:
        outcome[(frame["ringfence.flow.action"] == "drop").fill_null(False).to_numpy()] = BLOCKED
    if "ringfence.firewall.action" in frame.columns:
        action = frame["ringfence.firewall.action"]
        outcome[action.is_not_null().to_numpy()] = NO_TEST
        outcome[(action == "pass").fill_null(False).to_numpy()] = PASSED
        outcome[(action == "block").fill_null(False).to_numpy() & (~swapped | replies.sure)] = BLOCKED
    return outcome


def silent(frame: pl.DataFrame, replies: Replies) -> Mask:
    """Flows that nobody answered, or only with RST, as far as the record would have told of an answer.

    A one-way record tells that of TCP only: an initiator that never sent more than SYN had no answer. Of a sampled flow
    it tells nothing.
    """
    tcp = _protocol(frame, EventClass.FLOW) == _TCP
    flags = _flags(frame, "ringfence.tcp.source_flags")
    unanswered = tcp & ((flags & (_SYN | _ACK)) == _SYN) & ~replies.swapped
    back, sampled = _get(frame, "destination.packets"), _get(frame, "ringfence.flow.sampling")
    if sampled is not None:
        unanswered &= sampled.is_null().to_numpy()
    if back is None:
        return _is(unanswered)
    refused = tcp & _only_reset(_flags(frame, "ringfence.tcp.destination_flags"))
    both_ways = back.is_not_null().to_numpy()
    return _is(np.where(both_ways, (_filled(back, 0) == 0) | refused, unanswered))


def _opened(flags: Flags) -> Mask:
    """SYN and ACK: a SYN-ACK, or the OR of a connection's flags from an end that heard the other."""
    return _is((flags & (_SYN | _ACK)) == (_SYN | _ACK))


def _only_reset(flags: Flags) -> Mask:
    return _is((flags & (_RST | _SYN | _PSH | _FIN)) == _RST)


def _alert_outcome(frame: pl.DataFrame, replies: Replies) -> Outcomes:
    outcome = np.full(frame.height, NO_TEST, np.int8)
    for name, word in (("ringfence.ids.action", "blocked"), ("ringfence.ids.verdict", "drop")):
        if name in frame.columns:
            outcome[(frame[name] == word).fill_null(False).to_numpy()] = BLOCKED
    return outcome


def _answer_in(name: str, *means_nothing: str) -> Callable[[pl.DataFrame, Replies], Outcomes]:
    """Passed where the record has this column, which only the server's answer fills."""

    def outcome(frame: pl.DataFrame, replies: Replies) -> Outcomes:
        if name not in frame.columns:
            return np.full(frame.height, UNDECIDED, np.int8)
        answered = frame[name].is_not_null()
        if means_nothing:
            answered &= ~frame[name].is_in(list(means_nothing)).fill_null(False)
        return np.where(answered.to_numpy(), PASSED, UNDECIDED).astype(np.int8)

    return outcome


_OUTCOME_OF: Mapping[EventClass, Callable[[pl.DataFrame, Replies], Outcomes]] = {
    EventClass.PF: _pf_outcome,
    EventClass.FLOW: flow_outcome,
    EventClass.ALERT: _alert_outcome,
    EventClass.DNS: _answer_in("dns.response_code"),
    EventClass.HTTP: _answer_in("http.response.status_code"),
    EventClass.TLS: _answer_in("tls.version", "UNDETERMINED"),  # Suricata's word for no ServerHello
    EventClass.SSH: _answer_in("ringfence.ssh.server"),
}
_ASSUMED_PROTOCOL: Mapping[EventClass, int] = {
    EventClass.HTTP: _TCP,
    EventClass.TLS: _TCP,
    EventClass.SSH: _TCP,
    EventClass.DNS: _UDP,
}


def _protocol(frame: pl.DataFrame, event_class: EventClass) -> Flags:
    assumed = _ASSUMED_PROTOCOL.get(event_class, 0)
    if "network.iana_number" not in frame.columns:
        return np.full(frame.height, assumed, np.uint8)
    return _filled(frame["network.iana_number"], assumed)


def _protocol_known(frame: pl.DataFrame, event_class: EventClass) -> Mask:
    if event_class in _ASSUMED_PROTOCOL:
        return np.ones(frame.height, np.bool_)
    column = _get(frame, "network.iana_number")
    return np.zeros(frame.height, np.bool_) if column is None else _is(column.is_not_null().to_numpy())


def _flags(frame: pl.DataFrame, name: str) -> Flags:
    return _filled(frame[name], 0) if name in frame.columns else np.zeros(frame.height, np.uint8)


def _ports(column: pl.Series | None, count: int) -> npt.NDArray[np.int32]:
    return np.full(count, -1, np.int32) if column is None else _filled(column, -1)


def _filled(column: pl.Series, value: int) -> npt.NDArray[Any]:
    """As numpy, nulls replaced; a column without nulls is not copied."""
    return (column.fill_null(value) if column.null_count() else column).to_numpy()


def _echo_reply(frame: pl.DataFrame, protocol: Flags) -> Mask:
    if "ringfence.icmp.type" not in frame.columns:
        return np.zeros(frame.height, np.bool_)
    kind = frame["ringfence.icmp.type"].fill_null(255).to_numpy()
    return _is(((protocol == _ICMP) & (kind == _ECHO_REPLY)) | ((protocol == _ICMP6) & (kind == _ECHO_REPLY6)))


def _is(condition: Any) -> Mask:
    """numpy types comparisons as Any."""
    mask: Mask = condition
    return mask


def _get(frame: pl.DataFrame, name: str) -> pl.Series | None:
    return frame[name] if name in frame.columns else None


def _same(word: str, count: int) -> pl.Series:
    return pl.Series([word]).new_from_index(0, count)


def _true_or_null(mask: Mask) -> pl.Series:
    return pl.Series([None, True], dtype=pl.Boolean)[pl.Series(mask.astype(np.uint32))]


def _words(words: tuple[str, ...], index: npt.NDArray[np.int8]) -> pl.Series:
    return pl.Series(words, dtype=pl.String)[pl.Series(index.astype(np.uint32))]


class Settings(BaseModel):
    """No options: the topology is all it needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BoundariesKind:
    """Entry point `boundaries`."""

    settings = Settings
    promise = "one boundary test per crossing row that its sensor can speak about; of several observers the first one's"
    status: Status = "experimental"
    event_classes = frozenset(_OUTCOME_OF)

    def build(self, settings: Settings, context: BuildContext) -> Boundaries:
        """Make the processor for a topology."""
        return Boundaries(context.topology)


KIND = BoundariesKind()
