"""What the framers of NetFlow, IPFIX and sFlow do alike: chunks, the unfinished datagram, and what cannot be cut."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.datagrams import UNCUT_BYTES, DatagramFramer
from collectors.ipfix import IpfixFramer
from collectors.netflow import NetflowFramer
from collectors.netflow_v9 import V9Framer
from collectors.sflow import SflowFramer
from tests.collectors import encode_sflow
from tests.collectors.encode_flowsets import V9, Ipfix, a_set, flow
from tests.collectors.encode_netflow import Export, Flow

STREAMS: dict[type[DatagramFramer], list[bytes]] = {
    NetflowFramer: [Export().encode([Flow()]), Export().encode([Flow(), Flow()])],
    V9Framer: [V9.message(V9.template(256)), V9.message(a_set(256, flow()))],
    SflowFramer: [encode_sflow.datagram(encode_sflow.counters()), encode_sflow.datagram(agent="2001:db8::1")],
    IpfixFramer: [Ipfix.message(Ipfix.template(256)), Ipfix.message(a_set(256, flow()))],
}
every_version = pytest.mark.parametrize("framer", STREAMS)


def cut(framer: DatagramFramer, chunks: Sequence[bytes]) -> list[bytes]:
    """All frames of a stream that arrives in these chunks."""
    frames = []
    for data, bounds in [*map(framer.cut, chunks), framer.finish()]:
        frames += [data[start:end] for start, end in pairwise(bounds)]
    return frames


@every_version
@given(places=st.lists(st.integers(0, 300), max_size=6).map(sorted))
def test_datagrams_come_whole_whatever_the_chunks(framer: type[DatagramFramer], places: list[int]) -> None:
    stream = b"".join(STREAMS[framer])

    chunks = [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]

    assert cut(framer(), chunks) == STREAMS[framer]


@every_version
def test_the_unfinished_datagram_is_pending_until_the_stream_ends(framer: type[DatagramFramer]) -> None:
    unfinished, of = framer(), STREAMS[framer][0][:-3]

    data, bounds = unfinished.cut(of)

    assert (data, bounds.tolist(), unfinished.pending) == (b"", [0], len(of))
    assert (unfinished.finish()[0], unfinished.pending) == (of, 0)


@every_version
def test_what_no_header_begins_comes_in_pieces_and_the_last_one_is_shorter(framer: type[DatagramFramer]) -> None:
    good, other = STREAMS[framer][0], b"\0\7" + bytes(UNCUT_BYTES + 5)
    if (
        framer is V9Framer
    ):  # its datagram ends only where another begins: what follows is one more set, of a length it cannot have
        assert cut(framer(), [good + other]) == [(good + other)[:UNCUT_BYTES], (good + other)[UNCUT_BYTES:]]
    else:
        assert cut(framer(), [good + other]) == [good, other[:UNCUT_BYTES], other[UNCUT_BYTES:]]


@every_version
def test_an_empty_stream_has_no_frames(framer: type[DatagramFramer]) -> None:
    assert cut(framer(), [b""]) == []
