"""ringfence's own counters, in one registry that the Prometheus sink serves, and the set-up of its log.

One inc(n) per batch, never per event; label values come from configuration or closed sets only (naming
practices of Prometheus; under 10 values a label, no address, user or event id ever).
"""

from __future__ import annotations

import logging
import sys

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from ringfence import __version__

REGISTRY = CollectorRegistry()

RECEIVED = Counter(
    "ringfence_events_received", "Lines, packets and datagrams that a collector received.", ["source"], registry=REGISTRY
)
PARSED = Counter("ringfence_events_parsed", "Rows decoded and appended to the bus.", ["source"], registry=REGISTRY)
REJECTED = Counter("ringfence_events_rejected", "Frames that could not be decoded.", ["source", "reason"], registry=REGISTRY)
DROPPED = Counter(
    "ringfence_events_dropped", "Frames lost before ringfence could store them.", ["source", "hop"], registry=REGISTRY
)
SHELL_CAPS = Counter(
    "ringfence_shell_caps",
    "Bounds that the shell of a collector hit, by name (the page on the architecture lists them).",
    ["source", "cap"],
    registry=REGISTRY,
)
DEAD = Counter("ringfence_dlq_messages", "Dead letters written.", ["stage", "reason"], registry=REGISTRY)
PROCESSED = Counter("ringfence_rows_processed", "Rows that a stage is done with.", ["stage"], registry=REGISTRY)
MERGED = Counter(
    "ringfence_crossings_merged", "Rows that told of a crossing which another observer had reported.", registry=REGISTRY
)
FORGOTTEN = Counter(
    "ringfence_crossings_forgotten", "Crossings forgotten while other observers might still report them.", registry=REGISTRY
)
DETECTOR_BOUNDS = Counter(
    "ringfence_detector_bounds",
    "Things that a detector forgot or left out because a bound of its memory was reached.",
    ["detector", "bound"],
    registry=REGISTRY,
)
YARA_COUNTS = Counter("ringfence_yara", "What happened as YARA rules were looked for, by what.", ["what"], registry=REGISTRY)
YARA_SUSPENDED = Gauge("ringfence_yara_rules_suspended", "YARA rules that took too long and are suspended.", registry=REGISTRY)
RULES_SUSPENDED = Counter(
    "ringfence_rules_suspended",
    "Times that a rule was suspended because it took too long; of the first hundred rules by their id, of others as `other`.",
    ["rule"],
    registry=REGISTRY,
)
RULE_VALUES_CUT = Counter(
    "ringfence_rule_values_cut",
    "Long values of which a regular expression of a rule read the beginning only.",
    registry=REGISTRY,
)
EXCEPTED = Counter(
    "ringfence_detections_excepted", "Detections that made no alert, by the exception.", ["exception"], registry=REGISTRY
)
EVICTED = Counter(
    "ringfence_alerts_evicted",
    "Alerts, and what could have raised or made one, that were forgotten because there were too many.",
    registry=REGISTRY,
)
RETRIES = Counter("ringfence_retries", "Calls that had to be repeated.", ["call"], registry=REGISTRY)
STEP_SECS = Histogram(
    "ringfence_processing_duration_seconds",
    "Time from reading a step to its commit.",
    ["stage"],
    registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
TOPOLOGY_LOADED = Gauge(
    "ringfence_topology_loaded_timestamp_seconds", "When the topology in force was loaded.", registry=REGISTRY
)
CERTIFICATE_EXPIRY = Gauge(
    "ringfence_certificate_expiry_timestamp_seconds",
    "When the certificate of a TLS listener expires.",
    ["certificate"],
    registry=REGISTRY,
)
COMMAND_STARTS = Counter(
    "ringfence_command_starts", "Times that the program of a collector was started.", ["source"], registry=REGISTRY
)
COMMAND_EXITS = Counter(
    "ringfence_command_exits",
    "Times that it ended without being told to, by its exit code or the name of the signal.",
    ["source", "status"],
    registry=REGISTRY,
)
COMMAND_CAPS = Counter(
    "ringfence_command_caps",
    "Bounds that its output hit: frame (the program is started again), error_line and error_lines (cut, forgotten).",
    ["source", "cap"],
    registry=REGISTRY,
)
FILE_TRUNCATIONS = Counter(
    "ringfence_file_truncations",
    "Times that a file was cut short under its reader, as copytruncate does.",
    ["path"],
    registry=REGISTRY,
)
FILE_LOSS_SECONDS = Counter(
    "ringfence_file_loss_seconds",
    "Time before truncations in which what was written to a file is lost, at most.",
    ["path"],
    registry=REGISTRY,
)
FILE_LOSS_BYTES = Counter(
    "ringfence_file_loss_bytes", "What that is at the rate at which the file grew, an estimate.", ["path"], registry=REGISTRY
)
_BUILD = Info("ringfence_build", "Version of ringfence.", registry=REGISTRY)
_BUILD.info({"version": __version__})


def set_up_log(level: str = "INFO") -> None:
    """Log full sentences to standard error; control characters of foreign text never reach the terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(message)s"))
    # kafka-python logs every retry as an error; the bus reads its log for reasons and tells them itself
    handler.addFilter(lambda record: not record.name.startswith("kafka"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n")


def printable(text: str, keep: str = "") -> str:
    """Text with control, bidirectional and zero-width characters escaped (CWE-117, CWE-150)."""
    return (
        text if text.isprintable() else "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()
