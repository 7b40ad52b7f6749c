"""Address text to integers and back, over whole columns.

In a frame an IPv4 address is an unsigned 32-bit integer in host order and an IPv6 address 16 bytes in network order; an
IPv4-mapped IPv6 address (RFC 4291 2.5.5.2) counts as IPv4. Text is parsed by inet_pton(3), which refuses the short and
octal forms that inet_aton takes ("10.1").
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

MAX_CACHED = 65_536


@dataclass(frozen=True, slots=True)
class HostPort:
    """`host:port` or `[v6]:port`, as in a `listen` option."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, value: object) -> HostPort:
        """Split text. Raises ValueError that says what is accepted."""
        match = _HOST_PORT.fullmatch(str(value))
        if match is None or int(match["port"]) > 65_535:
            raise ValueError(f"{value!r} is not HOST:PORT, such as 127.0.0.1:2055 or [::1]:2055")
        return cls(match["v6"] or match["host"], int(match["port"]))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Accept HostPort itself or its text."""
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(value),
            json_schema_input_schema=core_schema.str_schema(),
        )


_HOST_PORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})")
MAPPED_PREFIX = bytes(10) + b"\xff\xff"

_NO_V4 = pl.Series([None], dtype=pl.UInt32)
_NO_V6 = pl.Series([None], dtype=pl.Binary)
_ABSENT = -1
_INVALID = -2
_FIRST_V6 = -3


class AddressColumn:
    """Parsed addresses of one column: `v4` and `v6` Series for a frame, and the rows whose text is no address."""

    __slots__ = ("invalid", "v4", "v6")

    def __init__(self, v4: pl.Series, v6: pl.Series | None, invalid: npt.NDArray[np.int64]) -> None:
        self.v4 = v4
        self.v6 = v6
        self.invalid = invalid


class AddressCache(dict[str | None, int]):
    """Remembers what address texts mean (47 M/s on hits); emptied when it holds MAX_CACHED entries.

    A value is the IPv4 integer, or a negative code: absent, invalid, or -3 - index into the IPv6 addresses seen.
    """

    def __init__(self) -> None:
        super().__init__({None: _ABSENT})
        self._v6: list[bytes] = []
        self._seen6 = pl.Series(dtype=pl.Binary)

    def __missing__(self, text: str) -> int:
        code = self[text] = self._parse(text)
        return code

    def column(self, texts: Sequence[str | None]) -> AddressColumn:
        """Parse a column of texts; None stays null."""
        if len(self) > MAX_CACHED:
            self.clear()
            self[None] = _ABSENT
            self._v6.clear()
            self._seen6 = pl.Series(dtype=pl.Binary)
        codes = np.fromiter(map(self.__getitem__, texts), np.int64, len(texts))
        lowest = int(codes.min(initial=0))
        v4 = pl.Series(codes, dtype=pl.Int64)
        if lowest >= 0:
            return AddressColumn(v4.cast(pl.UInt32), None, np.empty(0, np.int64))
        v4 = pl.Series(np.maximum(codes, 0).astype(np.uint32)).zip_with(pl.Series(codes >= 0), _NO_V4)
        invalid = np.flatnonzero(codes == _INVALID)
        if lowest > _FIRST_V6:
            return AddressColumn(v4, None, invalid)
        places = pl.Series(np.maximum(_FIRST_V6 - codes, 0).astype(np.uint32))
        v6 = self._table6()[places].zip_with(pl.Series(codes <= _FIRST_V6), _NO_V6)
        return AddressColumn(v4, v6, invalid)

    def _table6(self) -> pl.Series:
        """The IPv6 addresses seen, as a column to gather from; made anew when there are more."""
        if len(self._seen6) != len(self._v6):
            self._seen6 = pl.Series(self._v6, dtype=pl.Binary)
        return self._seen6

    def _parse(self, text: str) -> int:
        try:
            if ":" not in text:
                return int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")
            packed = socket.inet_pton(socket.AF_INET6, text)
        except (OSError, ValueError):
            return _INVALID
        if packed.startswith(MAPPED_PREFIX):
            return int.from_bytes(packed[12:], "big")
        self._v6.append(packed)
        return _FIRST_V6 - (len(self._v6) - 1)


def parse(text: str) -> int | bytes | None:
    """One address: the IPv4 integer, the 16 bytes of IPv6, or None when the text is no address."""
    cache = AddressCache()
    column = cache.column([text])
    if len(column.invalid):
        return None
    value: int | bytes = column.v4[0] if column.v6 is None else column.v6[0]
    return value


_HIGH = pl.Series([f"{high >> 8}.{high & 255}." for high in range(65_536)])
_NO_TEXT = pl.Series([None], dtype=pl.String)
_EMPTY = pl.Series([""])
_LOW = pl.Series([f"{low >> 8}.{low & 255}" for low in range(65_536)])


def shown(v4: int | None, v6: bytes | None) -> str | None:
    """The text of one address, or None where there is none."""
    if v4 is not None:
        return f"{v4 >> 24}.{v4 >> 16 & 255}.{v4 >> 8 & 255}.{v4 & 255}"
    return None if v6 is None else _text6(v6)


def text4(addresses: pl.Series) -> pl.Series:
    """Dotted text of a UInt32 column, null where it is null (two table look-ups an address, 18 M/s)."""
    return joined(_pieces4(addresses))


def joined(pieces: tuple[pl.Series, ...]) -> pl.Series:
    """The pieces of addresses as one column."""
    return pieces[0] if len(pieces) == 1 else pieces[0] + pieces[1]


def _pieces4(addresses: pl.Series) -> tuple[pl.Series, ...]:
    if not addresses.null_count():
        values = addresses.to_numpy()
        return _HIGH[pl.Series(values >> 16)], _LOW[pl.Series(values & 0xFFFF)]
    high, low = _pieces4(addresses.fill_null(0))
    return high.zip_with(addresses.is_not_null(), _NO_TEXT), low


def text6(addresses: pl.Series) -> pl.Series:
    """RFC 5952 text of a Binary column of 16-byte addresses, null where it is null."""
    texts = pl.Series(["", *map(_text6, addresses.drop_nulls().to_list())], dtype=pl.String)
    if not addresses.null_count():
        return texts[1:]
    is_known = addresses.is_not_null()
    known = is_known.to_numpy()
    return texts[pl.Series((np.cumsum(known) * known).astype(np.uint32))].zip_with(is_known, _NO_TEXT)


@lru_cache(maxsize=MAX_CACHED)
def _text6(address: bytes) -> str | None:
    return socket.inet_ntop(socket.AF_INET6, address) if len(address) == 16 else None


def pieces(v4: pl.Series | None, v6: pl.Series | None) -> tuple[pl.Series, ...] | None:
    """The text of an address in one or two columns to write one after the other, the first one null where there is none.

    From its two columns, whichever of them a frame has. Not joined, for that costs more than all the rest.
    """
    if v6 is None or v6.null_count() == len(v6):
        return None if v4 is None else _pieces4(v4)
    if v4 is None or v4.null_count() == len(v4):
        return (text6(v6),)
    is_v4 = v4.is_not_null()
    high, low = _pieces4(v4)
    return high.zip_with(is_v4, text6(v6)), low.zip_with(is_v4, _EMPTY)


def text(v4: pl.Series | None, v6: pl.Series | None) -> pl.Series | None:
    """The same as one text column."""
    found = pieces(v4, v6)
    return None if found is None else joined(found)
