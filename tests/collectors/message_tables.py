"""What the tests of message tables share: reading one message, and that any words are read or left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from collectors.message_forms import Reader


def said(
    readers: Mapping[str, Reader], fields: Sequence[str], program: str, message: str
) -> tuple[str, str, dict[str, str]] | None:
    """Action, outcome and the fields that the message fills; None when it has no form."""
    found = readers[program](message)
    if found is None:
        return None
    action, outcome, *texts = found
    assert action is not None
    assert outcome is not None
    return action, outcome, {name: text for name, text in zip(fields, texts, strict=True) if text}


def read_any_words(readers: Mapping[str, Reader], fields: Sequence[str], messages: Sequence[str]) -> None:
    """Nothing that is made of the words of messages makes a reader raise, or return anything but a form."""
    words = [*sorted({word for message in messages for word in message.split(" ")}), " ", "(", "'", ":", "\n", "\x00", "é"]

    @given(st.sampled_from(sorted(readers)), st.lists(st.sampled_from(words), max_size=30))
    def check(program: str, drawn: list[str]) -> None:
        found = said(readers, fields, program, " ".join(drawn))
        assert found is None or (found[0] and found[1] in ("success", "failure"))

    check()
