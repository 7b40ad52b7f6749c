"""Whom a port of flows listens to, and where."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from collectors.exporters import Allowed, endpoint, fed, resource
from collectors.netflow import NetflowDecoder
from ringfence.batch import ProblemCode, Source, frames_of
from tests.collectors.encode_netflow import Export, Flow

GOOD = Export().encode([Flow()])


@pytest.mark.parametrize(
    ("listen", "found"),
    [
        ("udp://192.0.2.1:6343", ("192.0.2.1", 6343)),
        ("192.0.2.1", ("192.0.2.1", 2055)),
        ("[::1]:9995", ("::1", 9995)),
        ("udp://collector.example", ("collector.example", 2055)),
    ],
)  # fmt: skip
def test_where_to_listen(listen: str, found: tuple[str, int]) -> None:
    assert endpoint(listen, 2055) == found


@pytest.mark.parametrize("listen", ["", "udp://", "tcp://0.0.0.0:1", "::1", "192.0.2.1:0", "192.0.2.1:65536", "a b:1"])
def test_what_is_no_address_to_listen_on(listen: str) -> None:
    with pytest.raises(ValueError, match=r"accepted: udp://HOST:PORT or HOST:PORT, such as 0\.0\.0\.0:2055"):
        endpoint(listen, 2055)


def test_a_port_is_named_once() -> None:
    assert (resource("::1", 1), resource("127.0.0.1", 1)) == ("udp [::1]:1", "udp 127.0.0.1:1")


@pytest.mark.parametrize(
    ("name", "is_allowed"), [("192.0.2.9", True), ("198.51.100.1", False), ("2001:db8::7%eth0", True), ("/var/flows", False)]
)
def test_senders_outside_of_the_prefixes_are_refused(name: str, is_allowed: bool) -> None:
    allowed = Allowed((ip_network("192.0.2.0/24"), ip_network("2001:db8::/64")))

    decoded = allowed.feed(NetflowDecoder().feed, frames_of([GOOD], Source(name, 1)))

    assert decoded.taken == is_allowed
    assert [(problem.code, problem.row) for problem in decoded.problems] == (
        [] if is_allowed else [(ProblemCode.NOT_ALLOWED, 0)]
    )


def test_problems_name_the_rows_of_all_datagrams() -> None:
    frames = frames_of([GOOD, b"x", GOOD, b"yy"], Source("x", 1))

    decoded = fed(NetflowDecoder().feed, frames, frames.offsets[1:] != frames.offsets[1])

    assert (decoded.taken, [(problem.row, problem.raw) for problem in decoded.problems]) == (1, [(1, b"x"), (3, b"yy")])
