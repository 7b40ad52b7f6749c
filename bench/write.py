"""Writes every corpus to a folder: `python -m bench.write FOLDER RULES [--quick]`; RULES is SigmaHQ's folder, or empty."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bench import corpus, exports, logs, payloads, processes
from bench.corpus import FULL, QUICK, Sizes


def write(folder: Path, sizes: Sizes) -> None:
    """Write topology.yml and one file for each corpus."""
    (folder / "topology.yml").write_text(corpus.topology())
    for name, parts in corpora(sizes).items():
        with (folder / name).open("wb") as file:
            file.writelines(parts)


def corpora(sizes: Sizes) -> dict[str, Iterator[bytes]]:
    """The corpora by file name."""
    return {
        "eve.json": corpus.eve(sizes.eve),
        "netflow.v5": corpus.netflow(sizes.netflow),
        "netflow.v9": exports.netflow_v9(sizes.netflow),
        "netflow.ipfix": exports.ipfix(sizes.netflow),
        "pflog.pcap": corpus.pcap(sizes.pflog),
        "syslog.log": corpus.syslog(sizes.syslog),
        "beats.ndjson": corpus.beats(sizes.beats),
        "zeek.json": logs.zeek_json(sizes.logs),
        "zeek.log": logs.zeek_tsv(sizes.logs),
        "filterlog.log": logs.filterlog(sizes.logs),
        "netfilter.log": logs.netfilter(sizes.logs),
        "pflog.txt": logs.pflog_text(sizes.logs),
        "hubble.json": logs.hubble(sizes.logs),
        "rules.yar": payloads.yara_rules(payloads.YARA_RULES),
        "requests.log": payloads.requests(sizes.syslog),
    }


if __name__ == "__main__":
    chosen = QUICK if "--quick" in sys.argv else FULL
    write(Path(sys.argv[1]), chosen)
    if sys.argv[2]:
        processes.write(Path(sys.argv[1]), Path(sys.argv[2]), {100: chosen.processes, 1_000: chosen.processes // 4})
