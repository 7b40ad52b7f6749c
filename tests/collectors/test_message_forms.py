"""Tables of message forms: which form a text has, and what its groups fill."""

from __future__ import annotations

from collectors.message_forms import Form, end_columns, present, reader
from ringfence.addresses import AddressCache, parse

FIELDS = ("user", "address", "method")


def test_the_first_form_that_fits_says_what_happened() -> None:
    read = reader((Form(r"in (?P<user>\S+)", "login"), Form(r"in (?P<user>.*)", "other", "failure")), FIELDS)

    assert read("in ann") == ("login", "success", "ann", None, None)
    assert read("in ann bob") == ("other", "failure", "ann bob", None, None)
    assert read("out ann") is None
    assert read("in ann\n") is None


def test_a_head_stands_before_every_form_and_may_fill_fields() -> None:
    read = reader((Form(r"in (?P<user>\S+)", "login"), Form("out", "logout")), FIELDS, r"(?P<address>[0-9.]+): ")

    assert read("192.0.2.7: in ann") == ("login", "success", "ann", "192.0.2.7", None)
    assert read("192.0.2.7: out") == ("logout", "success", None, "192.0.2.7", None)


def test_what_a_form_fixes_is_no_part_of_the_text() -> None:
    read = reader((Form(r"in (?P<user>\S+)", "login", fixed={"method": "eap"}),), FIELDS)

    assert read("in ann") == ("login", "success", "ann", None, "eap")


def test_the_columns_of_an_end_are_numbers() -> None:
    columns = end_columns("source", ["192.0.2.7", "host", None, "2001:db8::1"], ["44", None, None, "1"], AddressCache())

    assert columns["source.ip"].to_list() == [parse("192.0.2.7"), None, None, None]
    assert columns["source.ip6"].to_list() == [None, None, None, parse("2001:db8::1")]
    assert columns["source.port"] == [44, None, None, 1]


def test_columns_without_any_text_are_left_out() -> None:
    assert present({"a": [None, "x"], "b": [None, None]}) == {"a": [None, "x"]}
