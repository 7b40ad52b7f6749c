"""The file of exceptions: what is refused, with its line, and what an entry covers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ringfence import alert_exceptions
from ringfence.alert_exceptions import AlertException, Subject
from ringfence.errors import ConfigError
from tests import frames

ENTRY = "exceptions: {scan: {owner: netops, reason: CHG-1, expires: 2027-03-31, match: %s}}"
SUBJECT: dict[str, Any] = {
    "rule_id": "r1", "rule_name": "Scan", "source": frames.v4("10.1.0.9"), "destination": frames.v6("2001:db8::1"), "host": "Web-5",
    "user": "svc-scan", "boundary": "a -> b",
}  # fmt: skip


def load(tmp_path: Path, text: str) -> tuple[AlertException, ...]:
    file = tmp_path / "exceptions.yml"
    file.write_text(text)
    return alert_exceptions.load(file)


@pytest.mark.parametrize(
    ("match", "is_covered"),
    [
        ("{rule: r1}", True),
        ("{rule: scan}", True),
        ("{rule: [r2, R1]}", True),
        ("{rule: r2}", False),
        ("{source: 10.1.0.0/24}", True),
        ("{source: 10.2.0.0/24}", False),
        ("{source: '2001:db8::/32'}", False),
        ("{destination: '2001:db8::/32'}", True),
        ("{host: web-5}", True),
        ("{user: svc-scan, host: web-6}", False),
        ("{boundary: a -> b, rule: r1}", True),
    ],
)
def test_what_an_entry_covers(match: str, is_covered: bool, tmp_path: Path) -> None:
    (entry,) = load(tmp_path, ENTRY % match)

    assert entry.covers(Subject(**SUBJECT)) is is_covered


def test_nothing_is_covered_by_what_is_not_known(tmp_path: Path) -> None:
    (entry,) = load(tmp_path, ENTRY % "{source: 0.0.0.0/0}")

    assert not entry.covers(Subject(**SUBJECT | {"source": None}))


def test_the_day_of_expiry_is_covered(tmp_path: Path) -> None:
    (entry,) = load(tmp_path, ENTRY % "{rule: r1}")

    assert entry.until_us == 1_806_537_600_000_000  # 2027-04-01T00:00Z
    assert alert_exceptions.expired([entry], entry.until_us - 1) == []
    assert alert_exceptions.expired([entry], entry.until_us) == [entry]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{reason: x, expires: 2027-01-01, match: {rule: r}}", "exceptions.scan.owner: is required"),
        ("{owner: x, reason: x, match: {rule: r}}", "exceptions.scan.expires: is required"),
        ("{owner: x, expires: 2027-01-01, match: {rule: r}}", "exceptions.scan.reason: is required"),
        (
            "{owner: '', reason: x, expires: 2027-01-01, match: {rule: r}}",
            "exceptions.scan.owner: String should have at least 1",
        ),
        ("{owner: x, reason: x, expires: soon, match: {rule: r}}", "exceptions.scan.expires: Input should be a valid date"),
        (
            "{owner: x, reason: x, expires: 2027-01-01, match: {}}",
            "exceptions.scan.match: an exception for everything is refused",
        ),
        ("{owner: x, reason: x, expires: 2027-01-01, match: {source: no}}", "accepted: an IPv4 or IPv6 prefix"),
        ("{owner: x, reason: x, expires: 2027-01-01, match: {ruel: r}}", "unknown option; did you mean rule?"),
    ],
)
def test_a_faulty_entry_is_refused_with_its_line(text: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, f"exceptions:\n  scan: {text}\n")

    assert "exceptions.yml:2: " in str(error.value)
    assert fault in str(error.value)
