"""Filter documents of Sigma: conditions that pySigma adds to the rules that they name, or to all of their log source.

The condition of a filter is joined to that of the rule by AND, as it is written: a filter that leaves something out says
`condition: not selection`. Filters never touch correlations.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

from sigma.filters import SigmaFilter
from sigma.rule import SigmaRule

from ringfence.sigma.correlations import References
from ringfence.sigma.refusals import Unsupported


def targets(sigma: SigmaFilter, rules: Mapping[str, SigmaRule], known: References) -> list[str]:
    """Ids of the rules that a filter is for; raises Unsupported for a name that stands for none of them."""
    named = sigma.filter.rules
    if isinstance(named, str):
        return [id for id, rule in rules.items() if rule.logsource in sigma.logsource]
    found = []
    for reference in named:
        id = known.resolve(reference.reference)
        if id not in rules:
            raise Unsupported(f"'{reference.reference}' is a correlation; filters are for rules only")
        if rules[id].logsource not in sigma.logsource:
            raise Unsupported(f"rule '{reference.reference}' is of another log source than this filter")
        found.append(id)
    return found


def applied(sigma: SigmaFilter, rule: SigmaRule) -> SigmaRule:
    """A copy of the rule with the filter in its condition."""
    copy = deepcopy(rule)
    sigma.apply_on_rule(copy)
    return copy
