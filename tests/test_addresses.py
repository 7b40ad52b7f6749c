"""Address text to integers and back."""

from __future__ import annotations

import ipaddress

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from ringfence import addresses
from ringfence.addresses import AddressCache, HostPort

U32 = st.integers(0, 2**32 - 1)
SIXTEEN = st.binary(min_size=16, max_size=16)


@given(U32)
def test_every_ipv4_address_is_read_back_from_its_text(number: int) -> None:
    assert addresses.parse(str(ipaddress.IPv4Address(number))) == number


@given(SIXTEEN)
def test_every_ipv6_address_is_read_back_from_its_text(packed: bytes) -> None:
    address = ipaddress.IPv6Address(packed)
    expected = int(address.ipv4_mapped) if address.ipv4_mapped else packed

    assert addresses.parse(str(address)) == expected


@pytest.mark.parametrize("text", ["::ffff:10.0.0.5", "::FFFF:a00:5", "0:0:0:0:0:ffff:10.0.0.5"])
def test_a_mapped_address_counts_as_ipv4(text: str) -> None:
    assert addresses.parse(text) == 0x0A00_0005


@pytest.mark.parametrize(
    "text",
    ["", " ", "10.1", "010.0.0.1", "0x0a000001", "10.0.0.256", "10.0.0.1 ", "10.0.0.1/24", "1.2.3.4\0", "::1%eth0", ":::", "host", "1" * 500, "\uff11.1.1.1", "\ud800"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    assert addresses.parse(text) is None


@given(st.text(max_size=20))
def test_any_text_is_read_as_ipaddress_reads_it(text: str) -> None:
    try:
        expected: object = ipaddress.ip_address(text)
    except ValueError:
        expected = None

    parsed = addresses.parse(text)

    if "%" not in text:
        assert (parsed is None) == (expected is None)


MIXED = ["10.0.0.1", None, "bad", "2001:db8::1", "10.0.0.1", "also bad", "2001:db8::2"]


def test_a_column_has_its_ipv4_addresses_in_place() -> None:
    assert AddressCache().column(MIXED).v4.to_list() == [0x0A00_0001, None, None, None, 0x0A00_0001, None, None]


def test_a_column_has_its_ipv6_addresses_in_place() -> None:
    one, two = (ipaddress.IPv6Address(f"2001:db8::{number}").packed for number in (1, 2))
    v6 = AddressCache().column(MIXED).v6

    assert v6 is not None
    assert v6.to_list() == [None, None, None, one, None, None, two]


def test_the_rows_that_hold_no_address_are_named() -> None:
    assert AddressCache().column(MIXED).invalid.tolist() == [2, 5]


def test_an_absent_address_is_not_invalid() -> None:
    assert AddressCache().column([None]).invalid.tolist() == []


def test_a_column_without_ipv6_has_no_ipv6_column() -> None:
    assert AddressCache().column(["10.0.0.1", None]).v6 is None


def test_an_empty_column_is_read() -> None:
    assert AddressCache().column([]).v4.to_list() == []


@given(st.lists(st.lists(st.sampled_from([*MIXED, "10.0.0.2", "::1", "fe80::1"]), max_size=6), max_size=5))
def test_a_full_cache_is_emptied_without_changing_any_answer(columns: list[list[str | None]]) -> None:
    small, limit = AddressCache(), addresses.MAX_CACHED
    addresses.MAX_CACHED = 3
    try:
        for column in columns:
            found, fresh = small.column(column), AddressCache().column(column)
            assert found.v4.to_list() == fresh.v4.to_list()
            assert (found.v6 is None) == (fresh.v6 is None)
            assert found.v6 is None or fresh.v6 is None or found.v6.to_list() == fresh.v6.to_list()
    finally:
        addresses.MAX_CACHED = limit


@given(st.lists(st.none() | U32, max_size=5))
def test_ipv4_text_is_dotted(numbers: list[int | None]) -> None:
    expected = [None if number is None else str(ipaddress.IPv4Address(number)) for number in numbers]

    assert addresses.text4(pl.Series(numbers, dtype=pl.UInt32)).to_list() == expected


@given(st.lists(st.none() | SIXTEEN.filter(lambda packed: packed[:10] != bytes(10)), max_size=5))
def test_ipv6_text_is_that_of_rfc_5952(packed: list[bytes | None]) -> None:
    expected = [None if address is None else str(ipaddress.IPv6Address(address)) for address in packed]

    assert addresses.text6(pl.Series(packed, dtype=pl.Binary)).to_list() == expected


def test_bytes_of_another_length_have_no_text() -> None:
    assert addresses.text6(pl.Series([b"", b"abcd", bytes(17)])).to_list() == [None, None, None]


def test_one_text_column_is_made_of_both_versions() -> None:
    four, six = pl.Series([1, None, None], dtype=pl.UInt32), pl.Series([None, bytes(15) + b"\1", None], dtype=pl.Binary)
    text = addresses.text(four, six)

    assert text is not None
    assert text.to_list() == ["0.0.0.1", "::1", None]


def test_no_columns_give_no_text() -> None:
    assert addresses.text(None, None) is None


class Listening(BaseModel):
    listen: HostPort


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:2055", "127.0.0.1", 2055), ("[::1]:0", "::1", 0), ("fw-1.example_net:65535", "fw-1.example_net", 65535)],
    ids=["v4", "v6", "name"],
)
def test_a_listen_address_is_split(text: str, host: str, port: int) -> None:
    listen = Listening.model_validate({"listen": text}).listen

    assert (str(listen), listen.host, listen.port) == (text, host, port)


@pytest.mark.parametrize(
    "text", ["", "2055", ":2055", "::1:2055", "host:", "host:65536", "host:-1", "ho st:1", "[::1]", None, 5]
)
def test_what_is_no_listen_address_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ValidationError, match=r"is not HOST:PORT, such as 127\.0\.0\.1:2055 or \[::1\]:2055"):
        Listening.model_validate({"listen": text})
