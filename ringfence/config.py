"""The one configuration file, ringfence.yml: which bus, topology, collectors and sinks; every fault reported at once.

Relative paths in it are relative to the folder of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ringfence import alert_exceptions, registry, topology, yamlfile
from ringfence.batching import Batching
from ringfence.bus import BusSettings, open_bus
from ringfence.component import BuildContext, Collector, Processor, Sink
from ringfence.errors import ConfigError, ConfigFault
from ringfence.registry import Group
from ringfence.rulesets import RuleFiles, Rules
from ringfence.topology import Topology

DEFAULT_FILE = Path("ringfence.yml")
DEFAULT_BUS = "sqlite:ringfence-bus"


@dataclass(frozen=True, slots=True)
class Component:
    """One configured collector or sink: its name, its kind and its checked settings."""

    name: str
    kind: Any
    settings: BaseModel

    def build(self, loaded: Topology) -> Any:
        """Make the running component."""
        return self.kind.build(self.settings, BuildContext(self.name, loaded))


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that `ringfence run` needs, checked."""

    bus_url: str
    bus: BusSettings
    topology_file: Path | None
    topology: Topology
    batching: Batching
    collectors: Mapping[str, Callable[[], Collector]]
    sinks: Mapping[str, Callable[[], Sink]]

    rule_files: RuleFiles = field(default_factory=RuleFiles)
    base: Path = Path()
    rules: Rules = field(default_factory=Rules)

    def processors(self, names: Sequence[str], loaded: Topology, rules: Rules) -> list[Processor]:
        """Build processors by name for a topology and a set of rules."""
        kinds = [(name, registry.load("processors", name)) for name in names]
        return [kind.build(kind.settings(), BuildContext(name, loaded, rules)) for name, kind in kinds]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    bus: str = DEFAULT_BUS
    bus_options: BusSettings = BusSettings()
    topology: Path | None = None
    rules: RuleFiles = RuleFiles()
    batching: Batching = Batching()
    collectors: dict[str, dict[str, Any]] = {}
    sinks: dict[str, dict[str, Any]] = {}


def load(path: Path) -> Config:
    """Read and check a configuration and the topology that it names. Raises ConfigError with every fault."""
    document = yamlfile.read(path)
    base = path.absolute().parent
    faults: list[ConfigFault] = []
    declared = _collected(lambda: yamlfile.validate(_File, document, document.data), faults)
    loaded = topology.EMPTY
    components: dict[str, dict[str, Component]] = {"collectors": {}, "sinks": {}}
    if declared is not None:
        if declared.topology is not None:
            loaded = _collected(lambda: topology.load(base / str(declared.topology)), faults) or loaded
        faults += _bus_faults(declared, document)
        faults += _rule_faults(declared, base, document)
        if (exceptions := declared.rules.exceptions) is not None:
            _collected(lambda: alert_exceptions.load(base / exceptions), faults)
    for group in ("collectors", "sinks"):
        entries = document.data.get(group)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if isinstance(entry, dict):
                component = _collected(lambda: _component(group, name, entry, document), faults)  # noqa: B023 (called at once)
                if component is not None:
                    components[group][name] = component
    faults += _clashes(components, document)
    if declared is not None and not faults and not (declared.collectors or declared.sinks or declared.topology):
        faults.append(document.fault((), "declares neither collectors, nor sinks, nor a topology: there is nothing to run"))
    if faults or declared is None:
        raise ConfigError(faults)
    return Config(
        bus_url=based_url(declared.bus, base),
        bus=declared.bus_options,
        topology_file=None if declared.topology is None else base / declared.topology,
        topology=loaded,
        batching=declared.batching,
        collectors={name: _builder(component, loaded) for name, component in components["collectors"].items()},
        sinks={name: _builder(component, loaded) for name, component in components["sinks"].items()},
        rule_files=declared.rules,
        base=base,
        rules=declared.rules.load(base),
    )


def based_url(url: str, base: Path) -> str:
    """A sqlite URL with its path made absolute; others as they are."""
    scheme, _, rest = url.partition(":")
    return f"sqlite:{base / rest}" if scheme == "sqlite" else url


def _builder(component: Component, loaded: Topology) -> Callable[[], Any]:
    return lambda: component.build(loaded)


def _collected(call: Callable[[], Any], faults: list[ConfigFault]) -> Any:
    try:
        return call()
    except ConfigError as error:
        faults += error.faults
        return None


def _component(group: Group, name: str, entry: dict[str, Any], document: yamlfile.Document) -> Component:
    known = registry.names(group)
    kind_name = entry.get("type")
    if kind_name is None:
        raise ConfigError([document.fault((group, name), f"type is required; accepted: {', '.join(known)}")])
    if kind_name not in known:
        message = f"unknown type {kind_name!r}{yamlfile.nearest(str(kind_name), known)}"
        raise ConfigError([document.fault((group, name, "type"), message)])
    kind = registry.load(group, str(kind_name))
    rest = {key: value for key, value in entry.items() if key != "type"}
    return Component(name, kind, yamlfile.validate(kind.settings, document, rest, (group, name)))


def _bus_faults(declared: _File, document: yamlfile.Document) -> Iterator[ConfigFault]:
    try:
        open_bus(declared.bus, declared.bus_options)
    except ValueError as error:
        yield document.fault(("bus",), str(error))


def _rule_faults(declared: _File, base: Path, document: yamlfile.Document) -> Iterator[ConfigFault]:
    """Rules that are refused are no fault of the configuration; files that are not there are."""
    for kind, number, path in declared.rules.missing(base):
        yield document.fault(("rules", kind, number), f"{path} is not there; accepted: rule files, or folders of them")


def _clashes(components: Mapping[str, Mapping[str, Component]], document: yamlfile.Document) -> Iterator[ConfigFault]:
    """No two components may claim one port or file."""
    owners: dict[str, tuple[str, str]] = {}
    for group, members in components.items():
        for name, component in members.items():
            for resource in component.kind.resources(component.settings):
                other = owners.setdefault(resource, (group, name))
                if other != (group, name):
                    line = document.line(other)
                    yield document.fault((group, name), f"{resource} is already used by {other[0]}.{other[1]} (line {line})")
