"""The sentence of an alert: one, plain, and harmless whatever is in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.wording import Story, sentence

AT = 1_795_592_663_000_000  # 2026-11-25 07:44:23 UTC
ENDS = {
    "source": "10.1.0.5", "source_segment": "users", "destination": "10.2.0.9", "destination_segment": "servers", "port": 3389,
    "service": "tcp/3389",
}  # fmt: skip


def told(**story: Any) -> str:
    usual: dict[str, Any] = {"kind": "rule", "level": "high", "rule": "Rule", "first_us": AT, "last_us": AT}
    return sentence(Story(**usual | story))


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("breached", "10.1.0.5 (users) reached 10.2.0.9:3389 (servers) by remote desktop, which no intent allows"),
        ("undeclared", "reached 10.2.0.9:3389 (servers) by remote desktop, for which no intent is declared"),
        ("overblocked", "was kept from 10.2.0.9:3389 (servers) by remote desktop, though intent allows it"),
        ("unproven", "may have reached 10.2.0.9:3389 (servers) by remote desktop, which is not proven"),
        ("held", "tried to reach 10.2.0.9:3389 (servers) by remote desktop and was blocked"),
        ("permitted", "reached 10.2.0.9:3389 (servers) by remote desktop, which intent allows"),
        (None, "Rule: from 10.1.0.5 (users) to 10.2.0.9:3389 (servers) by remote desktop"),
    ],
)
def test_each_verdict_has_its_words(verdict: str | None, words: str) -> None:
    assert words in told(verdict=verdict, **ENDS)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"port": 8123, "service": "portal"}, "10.2.0.9:8123 (servers) by portal;"),
        ({"port": None, "service": None, "verdict": "held"}, "10.2.0.9 (servers) by several services and was blocked;"),
        ({"destination": "2001:db8::1"}, "[2001:db8::1]:3389"),
        ({"is_simulated": True}, "(simulated by ringfence);"),
        ({"destination": None}, "Rule: from 10.1.0.5 (users);"),
        ({"user": "ann", "process": "/usr/bin/nc"}, ", by account ann, in program /usr/bin/nc;"),
    ],
)
def test_what_is_known_is_told(changed: dict[str, Any], words: str) -> None:
    assert words in told(**{**ENDS, **changed})


@pytest.mark.parametrize(
    ("last_us", "words"),
    [
        (AT + 420_000_000, "from 07:44 to 07:51 UTC."),
        (AT + 86_400_000_000, "from 2026-11-25 07:44 to 2026-11-26 07:44 UTC."),
        (2**62, "to ????-??-?? ??:?? UTC."),
    ],
)
def test_times_are_told_in_utc(last_us: int, words: str) -> None:
    assert told(last_us=last_us).endswith(words)


def test_a_chain_and_a_risk_name_the_host() -> None:
    assert "10.1.0.5 looked around, got at credentials" in told(kind="kill-chain", actor="10.1.0.5")
    assert "What web-5 did adds up to a risk of 120" in told(kind="risk", actor="web-5", risk=120, tactics=("Impact",))


@given(st.text(), st.text(), st.text(), st.sampled_from(["rule", "risk", "kill-chain"]))
def test_no_text_moves_a_cursor(host: str, user: str, rule: str, kind: str) -> None:
    text = told(kind=kind, host=host, user=user, rule=rule, actor=host)

    assert text.isprintable()
    assert len(text) < 10 * (3 * 83) + 300
