"""`ringfence rules list|check|test|match|explain|backtest|coverage`: rules for people who write them.

Rules are Sigma files or folders of them, for `list` and `check` YARA files too; `bundled` stands for the bundled rules. `test` runs the tests that rules
carry (see docs/how-to/write-sigma-rules.md). `match` and `explain` read events as any format of `ringfence decode`, where a
rule sees the columns that its log source is mapped to; or, with `--format json`, as JSON lines whose fields are named as
the rules name them, where log sources do not count. `backtest` runs recorded files through the whole chain and tells what
each rule would have found.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rich.table import Table as Grid

from ringfence import registry, rulesets, schema
from ringfence.batch import Batch, EventClass, Header
from ringfence.cli import backtest
from ringfence.cli.decode import frames_in
from ringfence.cli.options import Subparsers, add_placeholders, add_year, counted, placeholders_of, say, year_of
from ringfence.component import Format
from ringfence.console import show
from ringfence.errors import ExitCode, Permanent
from ringfence.sigma import explain, fields, rules, trial
from ringfence.sigma.engine import Engine
from ringfence.sigma.plain import Reader
from ringfence.sigma.rules import Loaded, Refusal, Rule, Unsupported
from ringfence.sigma.table import Table
from ringfence.telemetry import printable
from ringfence.yara.rules import finding_of

PLAIN = "json"
BLOCK_LINES = 10_000
_RECOGNISE_BYTES = 64 * 1024


def add(verbs: Subparsers) -> None:
    """Declare the verb and its actions."""
    verb = verbs.add_parser(
        "rules",
        help="list, check and try detection rules",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: ringfence rules match rules/ --events eve.json",
    )
    actions = verb.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, run, help_text in (
        ("list", _list, "every rule that is in force"),
        ("check", _check, "what is refused, with file, line and reason; exit 1 when there is any"),
        ("test", _test, "run the tests that rules carry; exit 1 when one fails"),
        ("coverage", _coverage, "ATT&CK techniques with the rules that name them"),
    ):
        action = actions.add_parser(name, help=help_text)
        _add_rules(action)
        action.add_argument("--json", action="store_true", help="one JSON document a line")
        action.set_defaults(run=run)
    match = actions.add_parser("match", help="one JSON line for each hit: rule id, event position, matched fields")
    _add_rules(match)
    _add_events(match)
    match.set_defaults(run=_match)
    why = actions.add_parser("explain", help="which part of a rule holds for an event, and which does not")
    _add_rules(why)
    _add_events(why)
    why.add_argument("--id", required=True, help="id or name of the rule")
    why.add_argument("--row", type=int, default=0, metavar="N", help="number of the event in the file, from 0 (default: 0)")
    why.set_defaults(run=_explain)

    past = actions.add_parser("backtest", help="what rules would have found in recorded files, by rule")
    _add_rules(past)
    backtest.declare(past)


def _add_rules(action: argparse.ArgumentParser) -> None:
    action.add_argument("rules", nargs="+", type=Path, metavar="RULES", help="rule files, or folders of them")
    add_placeholders(action)


def _add_events(action: argparse.ArgumentParser) -> None:
    action.add_argument("--events", required=True, metavar="FILE", help="events to try the rules on, or - for standard input")
    action.add_argument(
        "--format",
        choices=[PLAIN, *sorted(registry.formats())],
        help=f"format of the events (default: recognised; {PLAIN}: fields named as in the rules)",
    )
    add_year(action)


def _loaded(arguments: argparse.Namespace) -> Loaded:
    paths = [rulesets.located(path, "sigma") for path in rulesets.files_at(arguments.rules).sigma]
    return rules.load(paths, placeholders_of(arguments))


def _list(arguments: argparse.Namespace) -> int:
    loaded = _loaded(arguments)
    routed, refused = _routed(loaded.rules)
    yara = rulesets.files_at(arguments.rules).load_yara()
    findings = [finding_of(rule) for rule in yara.rules]
    if arguments.json:
        for rule, classes in routed:
            say(json.dumps({**_facts(rule), "classes": sorted(classes), "path": rule.path, "line": rule.line}))
        for found, own in zip(findings, yara.rules, strict=True):
            facts = {"id": found.id, "title": found.name, "level": found.level, "tags": list(own.tags)}
            say(json.dumps({**facts, "classes": ["yara"], "path": own.path, "line": own.line}))
    else:
        grid = Grid("level", "title", "log source", "classes", "id", box=None)
        for rule, classes in routed:
            grid.add_row(rule.level, printable(rule.title), str(rule.source), _class_names(classes), printable(rule.id))
        for found in findings:
            grid.add_row(found.level, printable(found.name), "text of events", "yara", printable(found.id))
        show(grid)
    _report([*loaded.refusals, *refused, *yara.refusals], len(routed) + len(yara.rules))
    return ExitCode.OK


def _class_names(classes: frozenset[EventClass]) -> str:
    return "any" if len(classes) >= len(EventClass) - 1 else ", ".join(sorted(classes))


def _check(arguments: argparse.Namespace) -> int:
    loaded = _loaded(arguments)
    routed, refused = _routed(loaded.rules)
    yara = rulesets.files_at(arguments.rules).load_yara()
    refusals = [*loaded.refusals, *refused, *yara.refusals]
    for refusal in refusals:
        if arguments.json:
            say(json.dumps({"path": refusal.path, "line": refusal.line, "title": refusal.title, "reason": refusal.reason}))
        else:
            say(str(refusal))
    _report(refusals, len(routed) + len(yara.rules))
    return ExitCode.FOUND if refusals else ExitCode.OK


def _coverage(arguments: argparse.Namespace) -> int:
    by_technique: dict[str, list[Rule]] = {}
    for rule in _loaded(arguments).rules:
        for tag in rule.tags:
            if tag.startswith("attack.t"):
                by_technique.setdefault(tag.removeprefix("attack.").upper(), []).append(rule)
    grid = Grid("technique", "rules", "titles", box=None)
    for technique, members in sorted(by_technique.items()):
        if arguments.json:
            say(json.dumps({"technique": technique, "rules": [rule.id for rule in members]}))
        grid.add_row(technique, str(len(members)), printable("; ".join(rule.title for rule in members[:3])))
    if not arguments.json:
        show(grid)
    return ExitCode.OK


def _test(arguments: argparse.Namespace) -> int:
    loaded = _loaded(arguments)
    tested = [rule for rule in loaded.rules if trial.is_tested(rule)]
    faults = [fault for rule in tested for fault in trial.faults(rule)]
    correlations = [each for each in loaded.correlations if trial.is_tested(each)]
    faults += [fault for each in correlations for fault in trial.faults_of(each, loaded)]
    for fault in faults:
        if arguments.json:
            say(json.dumps({"path": fault.rule.path, "id": fault.rule.id, "title": fault.rule.title, "reason": fault.reason}))
        else:
            say(str(fault))
    untested = len(loaded.rules) + len(loaded.correlations) - len(tested) - len(correlations)
    sys.stderr.write(
        f"{counted(len(tested) + len(correlations), 'rule')} tested, {counted(len(faults), 'fault')}; {untested:,} carry no tests\n"
    )
    return ExitCode.FOUND if faults or loaded.refusals else ExitCode.OK


def _report(refusals: Sequence[Refusal], count: int) -> None:
    sys.stderr.write(f"{counted(count, 'rule')} in force, {len(refusals):,} refused\n")


def _facts(rule: Rule) -> dict[str, Any]:
    return {"id": rule.id, "title": rule.title, "level": rule.level, "tags": list(rule.tags)}


def _routed(found: Sequence[Rule]) -> tuple[list[tuple[Rule, frozenset[EventClass]]], list[Refusal]]:
    """Rules on columns, and those whose log source or fields no event has."""
    routed, refused = [], []
    for rule in found:
        try:
            on_columns = fields.routed(rule)
            routed.append((on_columns.rule, on_columns.classes))
        except Unsupported as error:
            refused.append(Refusal(rule.path, rule.line, rule.title, str(error)))
    return routed, refused


class _Block(NamedTuple):
    """Events with the rules for them; `place` gives number and byte of a row's event in the file."""

    engine: Engine
    table: Table
    place: Callable[[int], tuple[int, int]]

    def where(self, row: int) -> dict[str, int]:
        """The same by name."""
        number, offset = self.place(row)
        return {"row": number, "offset": offset}


def _match(arguments: argparse.Namespace) -> int:
    hits = 0
    for block in _blocks(arguments, _loaded(arguments)):
        found = []
        for match in block.engine.match(block.table):
            fields_at = explain.fields(match.rule.condition, block.table)
            found += [(row, match.rule, fields_at) for row in match.rows.tolist()]
        found.sort(key=lambda hit: hit[0])
        lines = [
            json.dumps({**_facts(rule), "event": block.where(row), "fields": fields_at(row)}) for row, rule, fields_at in found
        ]
        sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
        hits += len(lines)
    return ExitCode.FOUND if hits else ExitCode.OK


def _explain(arguments: argparse.Namespace) -> int:
    loaded = _loaded(arguments)
    chosen = [rule for rule in loaded.rules if arguments.id in (rule.id, rule.name)]
    if not chosen:
        refused = next((str(refusal) for refusal in loaded.refusals), "no rule was refused")
        raise Permanent(f"no rule in force has the id or name {arguments.id!r}; first refusal: {refused}")
    is_seen = False
    for block in _blocks(arguments, Loaded(chosen, ())):
        for row in range(block.table.height):
            if block.place(row)[0] == arguments.row:
                is_seen = True
                for rule in block.engine.rules:
                    for holds, depth, text in explain.lines(rule.condition, block.table, row):
                        say(f"{'yes' if holds else 'no ':3} {'  ' * depth}{text}")
    if not is_seen:
        raise Permanent(f"{arguments.events} has no event {arguments.row} that the rule is for; count from 0")
    return ExitCode.OK


def _blocks(arguments: argparse.Namespace, loaded: Loaded) -> Iterator[_Block]:
    try:
        stream = sys.stdin.buffer if arguments.events == "-" else Path(arguments.events).open("rb")  # noqa: SIM115 -- closed below
    except OSError as error:
        raise Permanent(f"{arguments.events} cannot be read: {error.strerror}") from None
    with stream:
        if arguments.format == PLAIN:
            yield from _plain_blocks(stream, loaded)
        else:
            yield from _decoded_blocks(stream, _format(stream, arguments), loaded, arguments)


def _format(stream: BinaryIO, arguments: argparse.Namespace) -> Format:
    known = registry.formats()
    if arguments.format:
        return known[arguments.format]
    first = stream.peek(_RECOGNISE_BYTES)[:_RECOGNISE_BYTES]  # type: ignore[attr-defined]  # both are buffered readers
    found = registry.recognise(first)
    if found is None:
        raise Permanent(
            f"the format of {arguments.events} is not recognised; name it with --format ({PLAIN}, {', '.join(sorted(known))})"
        )
    return found


def _plain_blocks(stream: BinaryIO, loaded: Loaded) -> Iterator[_Block]:
    _report(loaded.refusals, len(loaded.rules))
    engine, reader = Engine(loaded.rules, on_suspension=_suspended), Reader(loaded.rules)
    number, offset = 0, 0
    while lines := [line for _, line in zip(range(BLOCK_LINES), stream, strict=False)]:
        events = reader.read(lines)
        for refused in events.refused:
            sys.stderr.write(printable(f"row {number + refused.row}, byte {refused.offset}: {refused.reason}") + "\n")
        offsets = [offset]
        for line in lines:
            offsets.append(offsets[-1] + len(line))
        yield _Block(engine, events.table, _place_in(events.rows, number, offsets))
        number, offset = number + len(lines), offsets[-1]


def _place_in(rows: Sequence[int], first: int, offsets: Sequence[int]) -> Callable[[int], tuple[int, int]]:
    return lambda row: (first + rows[row], offsets[rows[row]])


def _decoded_blocks(stream: BinaryIO, chosen: Format, loaded: Loaded, arguments: argparse.Namespace) -> Iterator[_Block]:
    routed, refused = _routed(loaded.rules)
    _report([*loaded.refusals, *refused], len(routed))
    engines = {
        event_class: Engine([rule for rule, classes in routed if event_class in classes], fields.is_text, _suspended)
        for event_class in EventClass
    }
    decoder = chosen.decoder(year_of(stream, arguments.year))
    before = 0
    for frames in frames_in(chosen, stream, arguments.events):
        decoded = decoder.feed(frames)
        for event_class, frame in decoded.rows.items():
            header = Header("", schema.VERSION, "", event_class, "", chosen.module, 0, frame.height, 0, 0, 0)
            positions = frame["ringfence.event.position"].to_list()
            rows = {int(place): before + number for number, place in enumerate(frames.positions.tolist())}
            yield _Block(engines[event_class], fields.table_of(Batch(header, frame)), _place_of(positions, rows))
        before += len(frames)


def _suspended(rule: Rule) -> None:
    sys.stderr.write(
        printable(f"{rule.path}:{rule.line}: {rule.title}: suspended, it took more than its time for a block of events") + "\n"
    )


def _place_of(positions: Sequence[int], rows: dict[int, int]) -> Callable[[int], tuple[int, int]]:
    return lambda row: (rows.get(positions[row], -1), positions[row])
