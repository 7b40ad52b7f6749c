"""Runs a configuration: opens the bus, starts the stages, and brings them to an end in the order of the data.

All stages run in one process by default, or one kind per process with `--stage`. SIGTERM or SIGINT stops the collectors;
what they took is committed, processed and delivered before the process ends, within DRAIN_SECS. A second signal ends it at once, which is as
safe as kill -9. SIGHUP reloads the topology: checked first, the last good one kept.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ringfence import alert_exceptions, bus, topology
from ringfence.batch import Frames
from ringfence.bus import open_bus
from ringfence.clock import Clock, SystemClock
from ringfence.component import Bus, Processor, Sink
from ringfence.config import Config
from ringfence.errors import ConfigError, RingfenceError
from ringfence.rulesets import Rules
from ringfence.stages import CollectStage, ProcessStage, SinkStage
from ringfence.telemetry import TOPOLOGY_LOADED
from ringfence.topology import Topology

Stage = Literal["all", "collect", "process", "sink"]
STAGES: tuple[Stage, ...] = ("all", "collect", "process", "sink")
PROCESSORS = ("segments", "boundaries", "scans", "paths", "names", "sigma", "yara", "alerts")
ENRICHERS = ("segments", "labels")
PROCESS_GROUP = "ringfence.process"
SAME_SIGNAL_SECS = 1.0
DRAIN_SECS = 20.0
MAX_REFUSALS_LOGGED = 20
"""`ringfence rules check` shows all of them."""

_log = logging.getLogger(__name__)


def groups_of(config: Config) -> dict[str, Sequence[str]]:
    """The consumer groups of a configuration with the topics that each reads."""
    groups: dict[str, Sequence[str]] = {PROCESS_GROUP: (bus.EVENTS,)}
    groups.update({f"ringfence.sink.{name}": tuple(build().topics) for name, build in config.sinks.items()})
    return groups


def bus_of(config: Config) -> Bus:
    """The bus of a configuration; what its groups have not read is kept."""
    return open_bus(config.bus_url, config.bus, groups_of(config))


@dataclass
class Options:
    """How to run: which stages, collectors one after the other (so that a replay is deterministic), progress.

    `is_last` says that no other run goes on from here: windows that are open are closed also where it is stopped.
    """

    stage: Stage = "all"
    one_by_one: bool = False
    handle_signals: bool = True
    is_last: bool = False
    on_progress: Callable[[str, Frames], None] = lambda name, frames: None


class Runtime:
    """One process of ringfence."""

    def __init__(self, config: Config, options: Options | None = None, clock: Clock | None = None) -> None:
        self._config = config
        self._options = options or Options()
        self._clock = clock or SystemClock()
        self._topology = config.topology
        self._rules = config.rules
        self._stop = asyncio.Event()
        self._collected = asyncio.Event()
        self._processed = asyncio.Event()
        self._reloadable: list[ProcessStage | SinkStage] = []
        self._listening = asyncio.Event()
        self._stopped_at = 0.0

    @property
    def _instance(self) -> str:
        """Which of several processes of a stage this is: Kafka only."""
        return self._config.bus.instance if self._config.bus_url.startswith("kafka:") else ""

    def _processors(self) -> list[Processor]:
        return self._config.processors(PROCESSORS, self._topology, self._rules)

    def _enrichers(self) -> list[Processor]:
        return self._config.processors(ENRICHERS, self._topology, self._rules)

    @property
    def was_stopped(self) -> bool:
        """True when run() ended because of stop() or a signal, not at the end of the inputs."""
        return self._stop.is_set()

    async def listening(self) -> None:
        """Wait until every collector has opened its input."""
        await self._listening.wait()

    def stop(self) -> None:
        """Take no more input; run() returns when all that was taken is delivered."""
        self._stop.set()
        if self._options.stage in ("process", "sink"):
            for stage in self._reloadable:
                stage.halt()

    async def run(self) -> None:
        """Run until every input has ended, or until stop(). Raises Permanent or Retryable with one clear sentence."""
        _tune_collector()
        engine = bus_of(self._config)
        self._watch_signals()
        try:
            await engine.open()
            TOPOLOGY_LOADED.set(self._clock.now() / 1_000_000)
            self._report(self._rules)
            await self._until_ended(asyncio.ensure_future(self._stages(engine)))
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from None
        finally:
            await engine.close()

    async def _stages(self, engine: Bus) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._collect(engine))
            group.create_task(self._process(engine))
            group.create_task(self._deliver(engine))

    async def _until_ended(self, work: asyncio.Future[None]) -> None:
        """Wait for the stages; once stopped, for DRAIN_SECS at most: a full disk or a dead server must not hold a stop."""
        stop: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await asyncio.wait((work,), timeout=DRAIN_SECS)
            if work.done():
                return work.result()
            _log.warning("not everything could be delivered in %d s; the rest stays where it is for the next start", DRAIN_SECS)
        finally:
            stop.cancel()
            work.cancel()
            await asyncio.wait((work,))

    async def _collect(self, engine: Bus) -> None:
        if self._options.stage in ("all", "collect"):
            buckets = self._config.bus.partitions if self._instance else 1
            stages = [
                CollectStage(name, build, engine, self._config.batching, buckets, self._clock, self._options.on_progress)
                for name, build in self._config.collectors.items()
            ]
            if self._options.one_by_one:
                for stage in stages:
                    await stage.run(self._stop)
            else:
                async with asyncio.TaskGroup() as group:
                    for stage in stages:
                        group.create_task(stage.run(self._stop))
                    for stage in stages:
                        await stage.opened.wait()
                    self._listening.set()
            self._collected.set()

    async def _process(self, engine: Bus) -> None:
        if self._options.stage in ("all", "process"):
            stage = ProcessStage(
                self._processors, engine, self._clock, self._instance, lambda: self._options.is_last or not self.was_stopped
            )
            self._reloadable.append(stage)
            await stage.run(self._collected)
            self._processed.set()

    async def _deliver(self, engine: Bus) -> None:
        if self._options.stage in ("all", "sink"):
            async with asyncio.TaskGroup() as group:
                for name, build in self._config.sinks.items():
                    stage = self._sink_stage(name, build(), engine)
                    group.create_task(stage.run(self._processed))

    def _sink_stage(self, name: str, sink: Sink, engine: Bus) -> SinkStage:
        stage = SinkStage(name, sink, self._enrichers, engine, self._clock, self._instance)
        self._reloadable.append(stage)
        return stage

    def reload(self) -> None:
        """Read rules and topology again; what is faulty is reported, and the last good one of it stays in force."""
        self.reload_rules()
        self.reload_topology()

    def reload_rules(self) -> None:
        """Read rules and exceptions again. A set that is empty where there was one is a mistake, and the last good one stays."""
        if not self._config.rule_files.sigma and not self._config.rule_files.yara:
            return
        try:
            loaded = self._config.rule_files.load(self._config.base)
        except ConfigError as error:
            _log.error("the rules are not reloaded, the last good ones stay: %s", error)
            return
        if self._rules.count and not loaded.count:
            _log.error("the rules are not reloaded, the last good ones stay: none of the %d is in force", len(loaded.refusals))
            return
        self._rules = loaded
        self._report(loaded)
        for stage in self._reloadable:
            stage.reload()

    def _report(self, rules: Rules) -> None:
        """Say what is in force, and each refusal once."""
        if rules.count or rules.refusals:
            _log.info(
                "rules in force: %d of Sigma (set %s), %d of YARA (set %s); %d refused",
                rules.sigma.count,
                rules.sigma.digest,
                len(rules.yara.rules),
                rules.yara.sha256[:16],
                len(rules.refusals),
            )
        for refusal in rules.refusals[:MAX_REFUSALS_LOGGED]:
            _log.warning("rule refused: %s", refusal)
        for exception in alert_exceptions.expired(rules.exceptions, self._clock.now()):
            _log.warning(
                "exception %s of %s has expired and applies no more: %s", exception.name, exception.owner, exception.reason
            )

    def reload_topology(self) -> None:
        """Read the topology file again; a faulty one is reported and the last good one stays in force."""
        path = self._config.topology_file
        if path is None:
            _log.warning("no topology file is configured: nothing to reload")
            return
        try:
            self._use(topology.load(path))
        except ConfigError as error:
            _log.error("the topology is not reloaded, the last good one stays: %s", error)

    def _use(self, loaded: Topology) -> None:
        self._topology = loaded
        for stage in self._reloadable:
            stage.reload()
        TOPOLOGY_LOADED.set(self._clock.now() / 1_000_000)
        _log.info(
            "topology reloaded: %d segments and %d intents from %s", len(loaded.segments), len(loaded.intents), loaded.file
        )

    def _watch_signals(self) -> None:
        if not self._options.handle_signals:
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    def _on_stop_signal(self) -> None:
        if self._stop.is_set() and self._clock.monotonic() - self._stopped_at < SAME_SIGNAL_SECS:
            return  # timeout(1) and terminals signal the process and its group: the same wish, twice
        if self._stop.is_set():
            _log.warning("second signal: ending at once; what is not committed will be read again")
            os._exit(1)
        self._stopped_at = self._clock.monotonic()
        _log.info("stopping: what was taken is delivered first; a second signal ends at once")
        self.stop()


def first_failure(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to report: one of ours if there is any, else the first bug."""
    flat: list[BaseException] = []
    waiting: list[BaseException] = [failures]
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
        else:
            flat.append(error)
    bugs = [error for error in flat if not isinstance(error, RingfenceError)]
    return (bugs or flat)[0]


def _tune_collector() -> None:
    """Blocks of rows make many short-lived lists and no cycles: collect a hundred times less often."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
