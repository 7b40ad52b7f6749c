"""The work of every measurement, by name. Preparing it is not timed."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
import polars as pl
import yara

from bench import reference, sigma
from bench.columnar import COLLECTOR, IDENTITY, Chain, Feed, byte_blocks, line_blocks
from bench.tenzir import Tenzir
from collectors.netflow import RECEIVE_BUFFER_BYTES
from collectors.pcap import FILE_HEADER_BYTES, PcapFramer
from collectors.tail import CHUNK_BYTES
from collectors.udp import UdpShell
from ringfence import codec, topology
from ringfence.batch import Batch, EventClass
from ringfence.correlation.engine import Correlator
from ringfence.correlation.matches import Matches
from ringfence.correlation.state import Limits
from ringfence.correlation.watermarks import Watermarks
from ringfence.segments import SegmentMap
from ringfence.sigma import rules
from ringfence.yara import rules as yara_rules
from ringfence.yara.scan import Scanner

DATAGRAMS = 333  # about 10,000 records
PCAP_BLOCK_BYTES = 3 << 19  # about 10,000 packets
WORKER_LAPS = 20
LOOK_UPS = 200_000
SETS_BLOCK_BYTES = 420 << 10  # about 10,000 records
FORMATS = {"v5": "netflow-v5", "v9": "netflow-v9", "ipfix": "ipfix"}
OFFERED = 1_000_000

Work = Callable[[], tuple[int, dict[str, int]]]
"""Does the work once; returns how many events that were, and the verdicts or classes that it counted."""


Use = Callable[[Chain, list[Batch]], Iterable[object]]


def _once(chain: Chain, blocks: Iterable[bytes], use: Use) -> tuple[int, dict[str, int]]:
    """Feed all blocks to a chain, use every step, and count rows and verdicts."""
    chain.restart()
    rows = 0
    for step in chain.steps(blocks):
        rows += sum(batch.frame.height for batch in step)
        deque(use(chain, step), maxlen=0)
    return rows, dict(chain.verdicts)


def _rows_only(chain: Chain, step: list[Batch]) -> Iterable[object]:
    return ()


def _judged(chain: Chain, step: list[Batch]) -> Iterable[object]:
    return (chain.judged(batch) for batch in step)


def _records(chain: Chain, step: list[Batch]) -> Iterable[object]:
    return chain.records(step)


class _Null:
    """Writes documents to the null device, as a sink would write them to a file."""

    def __init__(self) -> None:
        self._file = Path("/dev/null").open("wb", buffering=0)  # noqa: SIM115 -- open as long as the process

    def __call__(self, chain: Chain, step: list[Batch]) -> Iterable[object]:
        for part in chain.documents(step):
            self._file.write(part)
        return ()


def _eve(rows: int, use: Callable[[], Use], folder: Path) -> Work:
    return partial(_once, Chain("suricata", folder, rows), line_blocks(folder / "eve.json", 10_000), use())


def _netflow(use: Use, folder: Path) -> Work:
    size = DATAGRAMS * (24 + 30 * 48)
    return partial(_once, Chain("netflow", folder, 10_000), byte_blocks(folder / "netflow.v5", size), use)


def _pflog(use: Use, folder: Path) -> Work:
    return partial(_once, Chain("pflog", folder, 10_000), byte_blocks(folder / "pflog.pcap", PCAP_BLOCK_BYTES), use)


def _pflog_decode_only(folder: Path) -> Work:
    feed = Feed(PcapFramer())
    frames = [feed.frames(block) for block in byte_blocks(folder / "pflog.pcap", PCAP_BLOCK_BYTES)]
    decoder = Chain("pflog", folder, 10_000).decoder

    def work() -> tuple[int, dict[str, int]]:
        return sum(decoder.feed(block).taken for block in frames), {}

    return work


def _lines(collector: str, file: str, format_name: str, folder: Path) -> Work:
    return partial(_once, Chain(collector, folder, 5_000, format_name), line_blocks(folder / file, 5_000), _rows_only)


def _sets(version: str, folder: Path) -> Work:
    """Datagrams of 24 records and a template now and then, cut at datagrams: some 10,000 records a block."""
    path = folder / f"netflow.{version}"
    return partial(_once, Chain("netflow", folder, 10_000, FORMATS[version]), byte_blocks(path, SETS_BLOCK_BYTES), _rows_only)


def _from_the_socket(version: str, offered: int, folder: Path) -> Work:
    """Receive what another process sends over loopback, decode and seal; events are those that came, `lost` what did not.

    Only this process's CPU is counted, that of the kernel on its behalf included. `offered` is records a second, 0 as fast
    as one sender can.
    """
    chain = Chain("netflow", folder, 10_000, FORMATS[version])
    path = folder / f"netflow.{version}"

    def work() -> tuple[int, dict[str, int]]:
        chain.restart()
        return asyncio.run(_receive(chain, path, version, offered))

    return work


async def _receive(chain: Chain, path: Path, version: str, offered: int) -> tuple[int, dict[str, int]]:
    shell = UdpShell("127.0.0.1", 0, RECEIVE_BUFFER_BYTES)
    await shell.open(b"")
    command = [sys.executable, "-m", "bench.sender", str(shell.port), str(path), version, str(offered)]
    sender = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    rows = datagrams = dropped = 0
    try:
        while True:
            delivery = await shell.read()
            dropped += delivery.shed.get("kernel_drops", 0)
            decoded = chain.decoder.feed(delivery.frames)
            datagrams += decoded.taken
            chain.batcher.add(decoded.rows, 0.0)
            if chain.batcher.due(0.0):
                rows += sum(batch.frame.height for batch in chain.take())
            if decoded.problems:
                break  # the sender's last datagram is none
    finally:
        await shell.close()
    said, _ = await sender.communicate()
    rows += sum(batch.frame.height for batch in chain.take())
    return rows, {"lost": int(said) - datagrams}


def _beats(folder: Path) -> Work:
    return partial(_once, Chain("beats", folder, 5_000), line_blocks(folder / "beats.ndjson", 1_000), _rows_only)


def _worker(folder: Path) -> Work:
    """The whole chain over a stream that does not end: reads as the tail shell makes them, blocks sealed when 5,000 rows of a class wait."""

    chain, write = Chain("suricata", folder, 5_000), _Null()

    def work() -> tuple[int, dict[str, int]]:
        rows = 0
        for step in chain.steps(_laps(folder / "eve.json")):
            rows += sum(batch.frame.height for batch in step)
            write(chain, step)
        return rows, {}

    return work


def _laps(path: Path) -> Iterator[bytes]:
    for _ in range(WORKER_LAPS):
        with path.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                yield data


def _flow_batch(folder: Path) -> tuple[Chain, Batch]:
    chain = Chain("suricata", folder, 10_000)
    step = next(chain.steps(line_blocks(folder / "eve.json", 10_000)))
    return chain, next(batch for batch in step if batch.header.event_class is EventClass.FLOW)


def _encode(folder: Path) -> Work:
    _, batch = _flow_batch(folder)
    return partial(_repeat, lambda: codec.encode(batch, b"0"), batch.frame.height)


def _decode(folder: Path) -> Work:
    _, batch = _flow_batch(folder)
    records = codec.encode(batch, b"0")
    return partial(_repeat, lambda: [codec.decode(record) for record in records], batch.frame.height)


def _repeat(call: Callable[[], object], count: int, times: int = 20) -> tuple[int, dict[str, int]]:
    for _ in range(times):
        call()
    return times * count, {}


def _addresses(folder: Path) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint32]], list[bytes]]:
    """The source addresses of the EVE corpus, both families, over and over."""
    chain = Chain("suricata", folder, 50_000)
    frames = [batch.frame for step in chain.steps([(folder / "eve.json").read_bytes()]) for batch in step]
    four = pl.concat([frame["source.ip"].drop_nulls() for frame in frames]).to_numpy()
    six = pl.concat([frame["source.ip6"].drop_nulls() for frame in frames]).to_list()
    return np.resize(four, LOOK_UPS), (six * (LOOK_UPS // len(six) + 1))[:LOOK_UPS]


def _look_up(version: int, folder: Path) -> Work:
    segments = SegmentMap(topology.load(folder / "topology.yml"))
    four, six = _addresses(folder)
    return partial(_repeat, (lambda: segments.codes4(four)) if version == 4 else (lambda: segments.codes6(six)), LOOK_UPS)


def _look_up_per_event(version: int, folder: Path) -> Work:
    prefixes = reference.Prefixes(topology.load(folder / "topology.yml"), version)
    four, six = _addresses(folder)
    numbers = four.tolist() if version == 4 else [int.from_bytes(address, "big") for address in six]
    return partial(_repeat, lambda: reference.look_up(prefixes, numbers), LOOK_UPS, 2)


def _eve_decode_per_event(folder: Path) -> Work:
    blocks = line_blocks(folder / "eve.json", 10_000)
    chain = reference.EveChain(topology.load(folder / "topology.yml"), IDENTITY, COLLECTOR)

    def work() -> tuple[int, dict[str, int]]:
        return sum(sum(1 for _ in chain.decoded(block)) for block in blocks), {}

    return work


def _eve_chain_per_event(folder: Path) -> Work:
    blocks, null = line_blocks(folder / "eve.json", 10_000), Path("/dev/null").open("w")  # noqa: SIM115 -- as above
    chain = reference.EveChain(topology.load(folder / "topology.yml"), IDENTITY, COLLECTOR)

    def work() -> tuple[int, dict[str, int]]:
        verdicts: Counter[str] = Counter()
        lines, position = 0, 0
        for block in blocks:
            null.writelines(f"{text}\n" for text in chain.documents(block, position, verdicts))
            lines += block.count(b"\n")
            position += len(block)
        return lines, dict(verdicts)

    return work


def _netflow_per_event(is_judged: bool, folder: Path) -> Work:
    data = (folder / "netflow.v5").read_bytes()
    datagrams = [data[start : start + 24 + 30 * 48] for start in range(0, len(data), 24 + 30 * 48)]
    judge = reference.PacketJudge(topology.load(folder / "topology.yml"))

    def work() -> tuple[int, dict[str, int]]:
        verdicts: Counter[str] = Counter()
        for datagram in datagrams:
            records = reference.netflow(datagram)
            if is_judged:
                judge.flows(records, verdicts)
            else:
                deque(records, maxlen=0)
        return len(datagrams) * 30, dict(verdicts)

    return work


def _pflog_per_event(is_judged: bool, folder: Path) -> Work:
    data = (folder / "pflog.pcap").read_bytes()
    frames = PcapFramer().cut(data)[1]
    judge = reference.PacketJudge(topology.load(folder / "topology.yml"))

    def work() -> tuple[int, dict[str, int]]:
        verdicts: Counter[str] = Counter()
        packets = reference.pflog(data, FILE_HEADER_BYTES)
        if is_judged:
            judge.packets(packets, verdicts)
        else:
            deque(packets, maxlen=0)
        return len(frames) - 2, dict(verdicts)

    return work


def _yara(folder: Path) -> Work:
    """Columns of 10,000 requests, scanned as a worker would."""
    scanner = Scanner(yara_rules.load([folder / "rules.yar"]))
    lines = (folder / "requests.log").read_bytes().splitlines()
    frames = [pl.DataFrame({"line": lines[start : start + 10_000]}) for start in range(0, len(lines), 10_000)]

    def work() -> tuple[int, dict[str, int]]:
        hits = Counter(hit.rule.identifier for frame in frames for hit in scanner.scan(frame, ["line"]))
        return len(lines), dict(hits)

    return work


def _yara_per_event(folder: Path) -> Work:
    compiled = yara.compile(filepath=str(folder / "rules.yar"))
    lines = (folder / "requests.log").read_bytes().splitlines()

    def work() -> tuple[int, dict[str, int]]:
        return len(lines), dict(Counter(match.rule for line in lines for match in compiled.match(data=line)))

    return work


_CORRELATION = """title: a
name: a
logsource: {{product: bench}}
detection: {{s: {{x: 1}}, condition: s}}
---
title: c
name: c
correlation: {{type: {0}, rules: a, group-by: [source], timespan: 5m, condition: {1}}}
"""
MATCHED, GROUPS = 1_000_000, 100_000


def _matched(is_skewed: bool) -> Matches:
    """Five minutes of events: of 100,000 sources alike and 100 that are a hundred times as busy, or by Zipf's law."""
    dice = np.random.default_rng(5)
    even = np.where(dice.random(MATCHED) < 0.01, dice.integers(0, 100, MATCHED), dice.integers(0, GROUPS, MATCHED))
    names = dice.zipf(1.2, MATCHED) % GROUPS if is_skewed else even
    return Matches(
        np.sort(dice.integers(0, 300_000_000, MATCHED)),
        np.zeros(MATCHED, np.int64),
        np.ones(MATCHED, np.uint64),
        np.arange(MATCHED, dtype=np.uint64),
        {
            "source": pl.Series(names).cast(pl.String).str.zfill(12),
            "port": pl.Series(dice.integers(0, 1_000, MATCHED)).cast(pl.String),
        },
    )


def _correlate(kind: str, condition: str, is_skewed: bool, folder: Path) -> Work:
    """From matches in batches of 10,000 rows to detections, with watermarks."""
    given, every = rules.loads(_CORRELATION.format(kind, condition)).correlations, _matched(is_skewed)

    def work() -> tuple[int, dict[str, int]]:
        marks, correlator, found = Watermarks(), Correlator(given, Limits(groups=2 * GROUPS)), 0
        for start in range(0, MATCHED, 10_000):
            part = slice(start, start + 10_000)
            seen = marks.observe(every.source[part], every.time_us[part])
            fields = {name: series[part] for name, series in every.fields.items()}
            matches = Matches(seen.time_us, seen.horizon_us, every.source[part], every.position[part], fields)
            found += len(correlator.feed({"a": matches}, marks.horizon_us))
        return MATCHED, {"detections": found}

    return work


def _tenzir(count: int, folder: Path) -> Work:
    return Tenzir(folder / f"sigma-{count}", folder / f"processes-{count}.json")


def clock_of(work: Work) -> Callable[[], float]:
    """CPU seconds: of this process, or what other software says of its own."""
    return work.clock if isinstance(work, Tenzir) else process_time


Prepare = Callable[[Path], Work]

MEASUREMENTS: Mapping[str, Prepare] = {
    "eve decode": partial(_eve, 10_000, lambda: _rows_only),
    "eve chain, 10,000 rows": partial(_eve, 10_000, _Null),
    "eve chain, 5,000 rows": partial(_eve, 5_000, _Null),
    "eve chain up to the bus": partial(_eve, 10_000, lambda: _records),
    "eve worker": _worker,
    "netflow v5 decode": partial(_netflow, _rows_only),
    "netflow v5 + segments + boundaries": partial(_netflow, _judged),
    "pflog decode": _pflog_decode_only,
    "pflog cut + decode": partial(_pflog, _rows_only),
    "pflog + segments + boundaries": partial(_pflog, _judged),
    "beats decode": _beats,
    "netflow v9 decode": partial(_sets, "v9"),
    "IPFIX decode": partial(_sets, "ipfix"),
    "netflow v5 from the socket": partial(_from_the_socket, "v5", 0),
    "netflow v5 from the socket, 1 M/s offered": partial(_from_the_socket, "v5", OFFERED),
    "netflow v9 from the socket, 1 M/s offered": partial(_from_the_socket, "v9", OFFERED),
    "IPFIX from the socket, 1 M/s offered": partial(_from_the_socket, "ipfix", OFFERED),
    "syslog decode": partial(_lines, "syslog", "syslog.log", "syslog"),
    "zeek json decode": partial(_lines, "zeek", "zeek.json", "zeek-json"),
    "zeek tsv decode": partial(_lines, "zeek", "zeek.log", "zeek-tsv"),
    "filterlog decode": partial(_lines, "filterlog", "filterlog.log", "filterlog"),
    "netfilter decode": partial(_lines, "netfilter", "netfilter.log", "netfilter"),
    "pflog-text decode": partial(_lines, "pflog_text", "pflog.txt", "pflog-text"),
    "hubble decode": partial(_lines, "hubble", "hubble.json", "hubble"),
    "yara, 500 rules": _yara,
    "block encode": _encode,
    "block decode": _decode,
    "segment look-up v4": partial(_look_up, 4),
    "segment look-up v6": partial(_look_up, 6),
    "correlation event_count": partial(_correlate, "event_count", "{gte: 50}", False),
    "correlation event_count, Zipf": partial(_correlate, "event_count", "{gte: 50}", True),
    "correlation value_count": partial(_correlate, "value_count", "{gte: 30, field: port}", False),
    "correlation value_count, Zipf": partial(_correlate, "value_count", "{gte: 30, field: port}", True),
    "sigma, 100 rules": partial(sigma.from_json, 100),
    "sigma, 1,000 rules": partial(sigma.from_json, 1_000),
    "sigma, SigmaHQ on a mixed stream": partial(sigma.mixed, sigma.whole),
    "sigma, bundled on a mixed stream": partial(sigma.mixed, sigma.bundled),
    "sigma, bundled on flows": partial(sigma.rows_of, EventClass.FLOW),
    "sigma, bundled on boundary tests": partial(sigma.rows_of, EventClass.BOUNDARY),
    "per event: sigma, 100 rules": partial(sigma.per_event, 100),
    "per event: sigma, 1,000 rules": partial(sigma.per_event, 1_000),
    "Tenzir: sigma, 100 rules": partial(_tenzir, 100),
    "Tenzir: sigma, 1,000 rules": partial(_tenzir, 1_000),
    "per event: eve decode": _eve_decode_per_event,
    "per event: eve chain": _eve_chain_per_event,
    "per event: netflow v5 decode": partial(_netflow_per_event, False),
    "per event: netflow v5 chain": partial(_netflow_per_event, True),
    "per event: pflog decode": partial(_pflog_per_event, False),
    "per event: pflog chain": partial(_pflog_per_event, True),
    "per event: yara, 500 rules": _yara_per_event,
    "per event: look-up v4": partial(_look_up_per_event, 4),
    "per event: look-up v6": partial(_look_up_per_event, 6),
}
"""Preparation of each measurement by name; `bench/__main__.py` says what is compared with what."""
