"""Looks for YARA rules in what others wrote: payloads of logs, command lines, names that were asked for, requests.

Which columns of an event class are scanned can be set. Hits of one value are in the order of the rules; offsets are bytes
of the value, text being UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ringfence.batch import Batch, EventClass
from ringfence.yara.rules import MODULES, Variable, load
from ringfence.yara.scan import MAX_VALUE_BYTES, REARM_SECS, Hit, Scanner

_COMMANDS = ("process.command_line", "process.parent.command_line")
COLUMNS: Mapping[EventClass, Sequence[str]] = {
    EventClass.FLOW: _COMMANDS,
    EventClass.DNS: ("dns.question.name", *_COMMANDS),
    EventClass.HTTP: ("url.original", "url.domain", "user_agent.original", "http.request.referrer"),
    EventClass.TLS: ("tls.client.server_name", "tls.server.subject", "tls.server.issuer"),
    EventClass.SSH: ("ringfence.ssh.client", "ringfence.ssh.server"),
    EventClass.ALERT: _COMMANDS,
    EventClass.AUTH: ("message", "process.command_line"),
    EventClass.PROCESS: ("message", *_COMMANDS),
    EventClass.FILE: ("file.name", "file.path", *_COMMANDS),
    EventClass.GENERIC: (
        "message",
        "event.original",
        "process.command_line",
        "powershell.file.script_block_text",
        "registry.data.strings",
        "ringfence.service.command_line",
    ),
}
"""What is scanned unless the owner says otherwise: columns whose text an attacker can choose. Of classes that are taken
apart the line itself is left out, for its parts are scanned; `event.original` is all there is of records nobody knows."""


class Settings(BaseModel):
    """Which rules, and within which bounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: Sequence[Path] = Field(description="Rule files, and folders of .yar and .yara files.")
    variables: Mapping[str, Variable] = Field(
        default={}, description="External variables of the rules: true or false, a number or text; the type counts."
    )
    modules: Sequence[str] = Field(default=sorted(MODULES), description="Modules that rules may import.")
    columns: Mapping[EventClass, Sequence[str]] = Field(
        default={}, description="Columns to scan of an event class, in place of those that are scanned by default."
    )
    max_value_bytes: int = Field(default=MAX_VALUE_BYTES, gt=0, description="Longer values are scanned up to here.")
    rearm_secs: float = Field(default=REARM_SECS, gt=0, description="How long a rule that was too slow is suspended.")


class Yara:
    """One rule set on batches of any class. `scanner` has the rules, the counts, and the rules that are suspended."""

    def __init__(self, settings: Settings) -> None:
        self.scanner = Scanner(
            load(settings.rules, settings.variables, settings.modules),
            rearm_secs=settings.rearm_secs,
            max_value_bytes=settings.max_value_bytes,
        )
        self._columns = {**COLUMNS, **settings.columns}

    def hits(self, batch: Batch) -> list[Hit]:
        """What the rules find in the columns of a batch, by row, column and rule."""
        return self.scanner.scan(batch.frame, self._columns.get(batch.header.event_class, ()))
