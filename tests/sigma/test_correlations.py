"""Correlation and filter documents: what is loaded, how references resolve, and what is refused with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.sigma import rules, tree
from ringfence.sigma.correlations import Absent, AllOf, Correlation, Input, Seen, Threshold

BASE = """title: Failed
id: 6ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11
name: failed
logsource: {product: linux}
detection: {a: {x: 1}, condition: a}
---
title: Passed
name: passed
logsource: {product: linux}
detection: {a: {x: 2}, condition: a}
"""
COUNT = """---
title: Many
name: many
level: high
ringfence.suppress: 1h
correlation:
  type: event_count
  rules: failed
  group-by: [user]
  timespan: 5m
  condition: {gte: 10}
"""


def correlation(body: str) -> str:
    return f"{BASE}---\ntitle: C\nname: c\ncorrelation: {{{body}}}\n"


def loaded(text: str) -> Correlation:
    found = rules.loads(text, "r.yml")
    assert not found.refusals, found.refusals[0]
    return found.correlations[-1]


def refused(text: str) -> str:
    found = rules.loads(text, "r.yml")
    (refusal,) = found.refusals
    return str(refusal)


def test_a_correlation_is_read_with_its_references() -> None:
    found = loaded(BASE + COUNT)

    assert (found.id, found.kind, found.level, found.span_us) == ("many", "event_count", "high", 300_000_000)
    assert found.inputs == (Input("6ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11", ("user",), ()),)
    assert found.condition == Threshold("gte", 10)
    assert found.suppress_us == 3_600_000_000
    assert not found.waits_for_end


@pytest.mark.parametrize(
    ("body", "attribute", "value"),
    [
        ("type: value_count, rules: [failed], timespan: 1h, condition: {gt: 3, field: [a, b]}", "kind", "value_count"),
        ("type: value_sum, rules: [failed], timespan: 1d, condition: {gte: 0.5, field: n}", "condition", Threshold("gte", 0.5)),
        ("type: value_avg, rules: [failed], timespan: 1w, condition: {lt: 3, field: n}", "waits_for_end", True),
        (
            "type: value_percentile, rules: [failed], timespan: 1m, condition: {gt: 3, field: n, percentile: 95}",
            "percentile",
            95.0,
        ),
        ("type: value_median, rules: [failed], timespan: 1s, condition: {gt: 3, field: n}", "percentile", 50.0),
        ("type: temporal, rules: [failed, passed], timespan: 1m", "condition", Threshold("gte", 2)),
        (
            "type: temporal_ordered, rules: [failed, passed], timespan: 1m, condition: {gte: 1}",
            "condition",
            Threshold("gte", 1),
        ),
        ("type: temporal, timespan: 1m, condition: failed and not passed", "condition", AllOf((Seen(0), Absent(Seen(1))))),
        ("type: temporal, timespan: 1m, condition: failed and not passed", "waits_for_end", True),
    ],
)
def test_every_type_is_known(body: str, attribute: str, value: object) -> None:
    assert getattr(loaded(correlation(body)), attribute) == value


def test_references_are_by_id_too_and_across_files(tmp_path: Path) -> None:
    by_id = COUNT.replace("rules: failed", "rules: [6AD5BA1F-1d5e-4d0b-9f3a-0d0c5a9a7c11]")
    (tmp_path / "a.yml").write_text(by_id)
    (tmp_path / "b.yml").write_text(BASE)
    found = rules.load([tmp_path])

    assert not found.refusals
    assert found.correlations[0].rules == ("6ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11",)


def test_aliases_are_resolved_for_each_rule() -> None:
    found = loaded(
        correlation(
            "type: temporal, rules: [failed, passed], timespan: 1m, group-by: [who, host],"
            "aliases: {who: {failed: user, passed: account}}"
        )
    )

    assert [each.group_by for each in found.inputs] == [("user", "host"), ("account", "host")]


def test_a_correlation_stands_behind_those_that_it_refers_to() -> None:
    chain = COUNT.replace("name: many", "name: chain").replace("rules: failed", "rules: many")
    found = rules.loads(chain + COUNT + "---\n" + BASE, "r.yml")

    assert not found.refusals
    assert [each.id for each in found.correlations] == ["many", "chain"]
    assert [each.is_reported for each in found.correlations] == [False, True]


@pytest.mark.parametrize(("generate", "reported"), [("", False), (", generate: false", False), (", generate: true", True)])
def test_rules_of_a_correlation_report_only_where_it_says_so(generate: str, reported: bool) -> None:
    found = rules.loads(correlation("type: event_count, rules: failed, timespan: 1m, condition: {gt: 1}" + generate), "r.yml")

    assert [rule.is_reported for rule in found.rules] == [reported, True]


def test_rules_of_a_refused_correlation_report() -> None:
    found = rules.loads(correlation("type: event_count, rules: [failed, nobody], timespan: 1m, condition: {gt: 1}"), "r.yml")

    assert [rule.is_reported for rule in found.rules] == [True, True]


C = "type: event_count, rules: failed, timespan: 1m, condition: {gt: 1}"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (C.replace("failed", "nobody"), "r.yml:14: C: rule 'nobody' is not among those that were loaded"),
        (C.replace("failed", "c"), "r.yml:13: C: correlation 'c' was refused, or refers back to this one"),
        (C.replace("event_count", "event_sum"), "r.yml:14: C: 'event_sum' is no valid Sigma correlation type"),
        (C.replace("1m", "1q"), "r.yml:14: C: Timespan '1q' is invalid."),
        (C.replace("1m", "0m"), "r.yml:14: C: Timespan '0m' must be greater than zero."),
        (C.replace("timespan", "timespam"), "r.yml:11: C: Sigma correlation rule without timespan"),
        (C + ", window: tumbling", "r.yml:14: C: unknown key 'window' in 'correlation'"),
        (C.replace("gt: 1", "gt: 1, lt: 5"), "r.yml:11: C: Sigma correlation condition must have exactly one condition item"),
        (C.replace("gt: 1", "lt: 1"), "r.yml:14: C: 'lt: 1' never holds: a window begins with an event, so its count is at least 1"),
        (C.replace("gt: 1", "gt: 1, field: x"), "r.yml:14: C: 'field' has no meaning in the condition of event_count"),
        (C.replace("gt: 1", "gt: 1000000"), "r.yml:14: C: 'gt: 1000000' counts to more than 100000"),
        (C.replace("failed", "[failed, failed]"), "r.yml:14: C: rule 'failed' is named twice in 'rules'"),
        (C.replace("event_count", "value_count"), "r.yml:11: C: Value count correlation rule without field reference"),
        (
            "type: value_percentile, rules: failed, timespan: 1m, condition: {gt: 1, field: x}",
            "r.yml:14: C: 'condition' of value_percentile needs 'percentile', a number from 0 to 100",
        ),
        (
            C + ", group-by: [u], aliases: {u: {other: x}}",
            "r.yml:14: C: alias 'u' has a field for 'other', which is not in 'rules'",
        ),
        (C + ", group-by: [u], aliases: {u: {}}", "r.yml:14: C: alias 'u' has no field for rule 'failed'"),
        (
            "type: temporal, rules: [failed, passed], timespan: 1m, condition: {gte: 3}",
            "r.yml:14: C: 'gte: 3' never holds: there are 2 rules",
        ),
    ],
)  # fmt: skip
def test_a_refusal_says_where_and_why(body: str, reason: str) -> None:
    assert refused(correlation(body)) == reason


def test_a_suppression_that_is_no_span_is_refused() -> None:
    assert refused(BASE + COUNT.replace("1h", "long")) == "r.yml:15: Many: Timespan 'long' is invalid."


def test_a_cycle_is_refused_on_both_sides() -> None:
    cycle = COUNT.replace("rules: failed", "rules: other") + COUNT.replace("many", "other").replace("failed", "many")
    found = rules.loads(cycle, "r.yml")

    assert not found.correlations
    assert [refusal.reason for refusal in found.refusals] == [
        "correlation 'other' was refused, or refers back to this one",
        "correlation 'many' was refused, or refers back to this one",
    ]


def test_a_correlation_of_a_refused_rule_says_so() -> None:
    found = rules.loads(BASE.replace("condition: a}", "condition: b}", 1) + COUNT, "r.yml")

    assert [refusal.reason for refusal in found.refusals][1] == "rule 'failed' was refused"


def test_a_name_of_two_rules_refers_to_neither() -> None:
    text = BASE + "---\n" + BASE.replace("name: passed", "name: failed").partition("---\n")[2] + COUNT

    assert refused(text).endswith("the name 'failed' is that of 2 rules; refer to one by its id")


def test_a_chain_groups_by_what_is_below_it() -> None:
    chain = COUNT.replace("name: many", "name: chain").replace("rules: failed", "rules: many").replace("[user]", "[host]")

    assert refused(BASE + COUNT + chain).endswith(
        "correlation 'many' has no field 'host'; it has those that it groups by: user"
    )


FILTER = """---
title: F
logsource: {product: linux}
filter:
  rules: [failed]
  selection: {host: scanner}
  condition: not selection
"""


def test_a_filter_is_joined_to_the_rules_that_it_names_as_it_is_written() -> None:
    first, second = rules.loads(BASE + FILTER, "r.yml").rules

    scanner = tree.Text("host", ("scanner",))
    assert first.condition == tree.And((tree.Number("x", 1), tree.Not(scanner)))
    assert second.condition == tree.Number("x", 2)
    assert rules.loads(BASE + FILTER.replace("not selection", "selection"), "r.yml").rules[0].condition == tree.And(
        (tree.Number("x", 1), scanner)
    )


def test_a_filter_of_any_is_for_all_rules_of_its_log_source() -> None:
    text = BASE.replace("product: linux", "product: windows", 1) + FILTER.replace("[failed]", "any")
    first, second = rules.loads(text, "r.yml").rules

    assert first.condition == tree.Number("x", 1)
    assert isinstance(second.condition, tree.And)


def test_a_filter_leaves_them_in_the_condition_of_its_rule_alone() -> None:
    text = BASE.replace("condition: a}", "condition: all of them}", 1) + FILTER.replace("not selection", "not 1 of them")
    first, _ = rules.loads(text, "r.yml").rules

    assert first.condition == tree.And((tree.Number("x", 1), tree.Not(tree.Text("host", ("scanner",)))))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("[failed]", "[nobody]"), "r.yml:15: F: rule 'nobody' is not among those that were loaded"),
        (("linux", "windows"), "r.yml:15: F: rule 'failed' is of another log source than this filter"),
        (("not selection", "not other"), "r.yml:"),
        (("  rules: [failed]\n", ""), "r.yml:11: F: Sigma filter must have a 'rules' field"),
    ],
)
def test_a_filter_that_cannot_be_applied_is_refused_and_leaves_the_rule_in_force(change: tuple[str, str], reason: str) -> None:
    found = rules.loads(BASE + FILTER.replace(*change), "r.yml")

    assert [str(refusal)[: len(reason)] for refusal in found.refusals] == [reason]
    assert found.rules[0].condition == tree.Number("x", 1)


def test_a_filter_is_not_for_correlations() -> None:
    assert refused(BASE + COUNT + FILTER.replace("[failed]", "[many]")).endswith(
        "F: 'many' is a correlation; filters are for rules only"
    )
