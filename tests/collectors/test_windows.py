"""Windows events: the table that says what each is, held against the schema, and what its conversions make of odd texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors import windows
from ringfence import schema
from ringfence.batch import EventClass

TABLE = [(provider, number, meaning) for (provider, number), meaning in windows._MEANINGS.items()]
NAMES = [f"{provider} {number}" for provider, number, _ in TABLE]
TEXTS = st.one_of(
    st.none(), st.sampled_from(["", "-", "0x3e7", "S-1-0-0", "tcp", "false", "%%14592", "0xC000006A", "A=,B=0,sha1=F", "X\\y"]), st.text(max_size=5)
)  # fmt: skip


@pytest.mark.parametrize(("provider", "number", "meaning"), TABLE, ids=NAMES)
def test_every_meaning_makes_columns_of_its_class(provider: str, number: int, meaning: windows.Meaning) -> None:
    columns = windows.columns_of(windows.meaning_of(provider, str(number)), {name: [None] for name in meaning.reads}, 1)

    assert columns.keys() <= schema.frame_schema(meaning.event_class).keys()


@given(st.sampled_from([meaning for _, _, meaning in TABLE]), st.data())
def test_fields_may_hold_anything(meaning: windows.Meaning, data: st.DataObject) -> None:
    found = {name: data.draw(st.lists(TEXTS, min_size=2, max_size=2)) for name in meaning.reads}

    assert all(len(values) == 2 for values in windows.columns_of(meaning, found, 2).values())


def test_what_is_not_in_the_table_is_generic() -> None:
    assert windows.meaning_of(windows.AUDIT, "1") is windows.meaning_of(None, None) is windows.UNKNOWN
    assert windows.UNKNOWN.event_class is EventClass.GENERIC


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0x1a2c", 6700),
        ("6700", 6700),
        ("0x", None),
        ("ten", None),
        ("9" * 30, None),
        ("9" * 9000, None),
        ("-1073741510", -1073741510),
    ],
)
def test_numbers_are_decimal_or_hexadecimal(text: str, number: int | None) -> None:
    assert windows._NUMBERS[text] == number


def test_nobody_is_no_account() -> None:
    meaning = windows.meaning_of(windows.AUDIT, "4625")
    data = {name: ["-"] for name in meaning.reads} | {"TargetUserSid": ["S-1-0-0"], "TargetUserName": ["ann"]}

    columns = windows.columns_of(meaning, data, 1)

    assert (columns["user.name"], columns["user.id"], columns["source.ip"]) == (["ann"], [None], [None])


@pytest.mark.parametrize(
    ("status", "finer", "reason"),
    [
        ("0xC000006D", "0xC000006A", "wrong password (0xc000006a)"),
        ("0xc0000234", "0x0", "account locked (0xc0000234)"),
        ("0xc0ffee00", "-", "0xc0ffee00"),
        ("0x0", "0x0", None),
    ],
)
def test_the_reason_of_a_failure_is_the_finer_code_in_words(status: str, finer: str, reason: str | None) -> None:
    meaning = windows.meaning_of(windows.AUDIT, "4625")
    data = {name: [None] for name in meaning.reads} | {"Status": [status], "SubStatus": [finer]}

    assert windows.columns_of(meaning, data, 1)["event.reason"] == [reason]


@pytest.mark.parametrize(
    ("number", "fields", "action"),
    [
        ("3", {"Protocol": "tcp", "Initiated": "false"}, "pass"),
        ("3", {"Protocol": "tcp", "Initiated": "true"}, None),
        ("3", {"Protocol": "udp", "Initiated": "false"}, None),
    ],
)
def test_only_an_accepted_connection_has_passed(number: str, fields: dict[str, str], action: str | None) -> None:
    meaning = windows.meaning_of(windows.SYSMON, number)
    data = {name: [fields.get(name)] for name in meaning.reads}

    assert windows.columns_of(meaning, data, 1)["ringfence.firewall.action"] == [action]


@pytest.mark.parametrize(("number", "direction", "action"), [("5156", "%%14592", "pass"), ("5156", "%%14593", None), ("5157", "%%14593", "block"), ("5152", "%%14592", "block")])  # fmt: skip
def test_what_the_filtering_platform_proves(number: str, direction: str, action: str | None) -> None:
    meaning = windows.meaning_of(windows.AUDIT, number)
    data = {name: [direction if name == "Direction" else "6"] for name in meaning.reads}

    assert windows.columns_of(meaning, data, 1)["ringfence.firewall.action"] == [action]


@pytest.mark.parametrize(
    ("direction", "ports", "swapped"),
    [
        ("%%14592", ("3333", "49278"), True),  # the example of Microsoft's page on 5156
        ("%%14592", ("49278", "3333"), False),
        ("%%14592", ("137", "137"), False),
        ("%%14592", ("50000", "50001"), False),
        ("%%14593", ("3333", "49278"), False),
        ("%%14592", (None, "49278"), False),
    ],
)
def test_the_listener_is_never_taken_for_the_initiator_of_what_came_in(
    direction: str, ports: tuple[str | None, str], swapped: bool
) -> None:
    meaning = windows.meaning_of(windows.AUDIT, "5156")
    fields = {
        "Direction": direction,
        "SourceAddress": "a",
        "SourcePort": ports[0],
        "DestAddress": "b",
        "DestPort": ports[1],
        "Protocol": "6",
    }
    columns = windows.columns_of(meaning, {name: [fields.get(name)] for name in meaning.reads}, 1)

    assert (columns["source.ip"], columns["destination.ip"]) == ((["b"], ["a"]) if swapped else (["a"], ["b"]))
    assert columns["destination.port"] == [windows.number(ports[0] if swapped else ports[1])]


def test_a_long_text_is_not_remembered() -> None:
    path = "C:\\" + "x" * windows.MAX_REMEMBERED_CHARS

    assert windows._BASES[path] == path[3:]
    assert path not in windows._BASES


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_REMEMBERED", 3)
    table = windows._Remembered(len)

    assert [table["x" * size] for size in range(9)] == list(range(9))
    assert len(table) <= 3
