from __future__ import annotations

import pytest
from pydantic import ValidationError

from ringfence.bus import BusSettings, open_bus


@pytest.mark.parametrize(
    "url", ["", "memory", "memory:x", "sqlite:", "kafka://", "kafka://host", "kafka://a:1,b", "kafka://a:1/Lab", "redis://a:1"]
)
def test_a_bad_url_says_what_is_accepted(url: str) -> None:
    with pytest.raises(ValueError, match=r"memory:, sqlite:PATH and kafka://HOST:PORT"):
        open_bus(url)


@pytest.mark.parametrize(
    ("url", "engine"),
    [
        ("memory:", "MemoryBus"),
        ("sqlite:/x", "EmbeddedBus"),
        ("kafka://a:1,b:2", "KafkaBus"),
        ("kafka://a:1/lab", "PrefixedBus"),
    ],
)
def test_the_url_chooses_the_engine(url: str, engine: str) -> None:
    assert type(open_bus(url)).__name__ == engine


def test_the_password_is_a_reference_and_never_shown() -> None:
    login = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "alice"}
    settings = BusSettings.model_validate({**login, "sasl_password": "file:/run/secret"})
    assert "/run/secret" not in repr(settings)
    with pytest.raises(ValidationError, match="sasl_password"):
        BusSettings.model_validate({**login, "sasl_password": "hunter2"})


@pytest.mark.parametrize("values", [{"security_protocol": "SASL_SSL"}, {"sasl_username": "alice"}, {"retention": 1}])
def test_settings_that_make_no_sense_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        BusSettings.model_validate(values)


def test_less_room_than_two_segment_files_is_refused() -> None:
    with pytest.raises(ValidationError, match="is less than two segment files"):
        BusSettings(segment_bytes=1 << 20, max_bytes=(2 << 20) - 1)
