"""Bulk requests: what is read of them, what is refused, and that real clients are answered only when documents are safe."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch, helpers
from elasticsearch.exceptions import ApiError, AuthenticationException
from hypothesis import given
from hypothesis import strategies as st

from collectors.beats import BeatsDecoder
from collectors.elastic_bulk import KIND, PIECE_BYTES, Credentials, ElasticBulkShell, Refused, answer, parse_bulk
from collectors.tls import TlsFiles
from ringfence.batching import Batching
from ringfence.bus import BusSettings, open_bus
from ringfence.clock import SystemClock
from ringfence.component import BuildContext, Collector
from ringfence.errors import Permanent
from ringfence.stages import CollectStage
from ringfence.topology import EMPTY
from tests.certificates import authority, issued, needs_openssl

CREATE = b'{"create":{"_index":"winlogbeat"}}\n'
DOCUMENT = b'{"@timestamp":"2026-11-25T07:44:23.123Z","message":"a"}\n'
TIME = "2026-11-25T07:44:23.123Z"


def test_actions_and_documents_are_told_apart() -> None:
    body = (
        CREATE
        + DOCUMENT
        + b'\n{"index":{"_id":"x"}}\n{"b":1}\n{"delete":{"_index":"i","_id":"y"}}\n{"update":{"_id":"z"}}\n{"doc":{}}\n'
    )

    bulk = parse_bulk(body, "path")

    assert bulk.documents == [DOCUMENT.rstrip(), b'{"b":1}']
    assert [(item.action, item.target, item.id, item.refusal is None) for item in bulk.items] == [
        ("create", "winlogbeat", None, True),
        ("index", "path", "x", True),
        ("delete", "i", "y", False),
        ("update", "path", "z", False),
    ]


def test_an_id_is_that_of_the_client_or_of_the_bytes() -> None:
    named = b'{"create":{"_index":"i","_id":"x"}}\n'
    one, two, three = parse_bulk(CREATE + b"{}\n" + CREATE + b"{}\n" + CREATE + b"[]\n", "").numbers
    four, five = parse_bulk(named + b"1\n" + named + b"2\n", "").numbers

    assert one == two != three
    assert four == five


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"no json\n{}\n", "line 1 is no action"),
        (CREATE + DOCUMENT + b'{"make":{}}\n{}\n', "line 3 is no action"),
        (b"{}\n{}\n", "line 1 has 0 actions"),
        (b'{"create":{},"index":{}}\n{}\n', "line 1 has 2 actions"),
        (CREATE.rstrip(), "line 1 has an action and no document"),
        (b"\xff\n", "line 1 is no action"),
    ],
)
def test_a_body_that_is_no_bulk_is_refused_whole(body: bytes, detail: str) -> None:
    with pytest.raises(Refused, match=detail) as refused:
        parse_bulk(body, "")

    assert refused.value.status == 400


@given(
    st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([CREATE, DOCUMENT, b'{"delete":{}}\n'])), max_size=8).map(
        b"".join
    )
)
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        bulk = parse_bulk(body, "")
    except Refused:
        return
    said = json.loads(answer(bulk, 1))["items"]

    assert len(bulk.documents) == len(bulk.numbers) == sum(item.refusal is None for item in bulk.items)
    assert [status for item in said for status in (next(iter(item.values()))["status"],)] == [
        201 if item.refusal is None else 400 for item in bulk.items
    ]


def credentials_file(folder: Path, text: str) -> Path:
    path = folder / "senders"
    path.write_text(text)
    return path


def header(scheme: str, value: str) -> bytes:
    return f"{scheme} {base64.b64encode(value.encode()).decode()}".encode()


def test_each_kind_of_credential_is_accepted(tmp_path: Path) -> None:
    known = Credentials(credentials_file(tmp_path, "# who\nbasic ann:s:3\n\napikey id:key\nbearer abc\n"))

    found = [
        known.allow(sent)
        for sent in (
            header("Basic", "ann:s:3"),
            header("ApiKey", "id:key"),
            b"Bearer abc",
            header("Basic", "ann:x"),
            b"bearer",
            b"",
        )
    ]

    assert found == [True, True, True, False, False, False]


def test_a_changed_file_is_read_again_and_a_broken_one_leaves_what_was(tmp_path: Path) -> None:
    path = credentials_file(tmp_path, "bearer old\n")
    known = Credentials(path)
    known.load()
    path.write_text("bearer newer\n")
    assert (known.allow(b"Bearer old"), known.allow(b"Bearer newer")) == (False, True)
    path.write_text("nonsense\n")
    assert known.allow(b"Bearer newer")


@pytest.mark.parametrize("text", ["", "# nobody\n", "basic nobody\n", "digest a:b\n"])
def test_a_file_without_credentials_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Permanent, match="expected lines basic USER:PASSWORD"):
        Credentials(credentials_file(tmp_path, text)).load()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="senders cannot be read: No such file"):
        Credentials(tmp_path / "senders").load()


Answer = tuple[int, Mapping[str, str], Any]


async def ask(shell: ElasticBulkShell, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shell.port)
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: x",
        f"content-length: {len(body)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    try:
        return await answered(reader, method)
    finally:
        writer.close()
        await writer.wait_closed()


async def answered(reader: asyncio.StreamReader, method: str = "POST") -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = b"" if method == "HEAD" else await reader.readexactly(int(headers.get("content-length", "0")))
    return int(head[0].split()[1]), headers, json.loads(body) if body else None


def serving(story: Callable[[ElasticBulkShell], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        shell = ElasticBulkShell("127.0.0.1", 0, **options)
        await shell.open(b"")
        try:
            async with asyncio.timeout(20):
                await story(shell)
        finally:
            await shell.close()

    asyncio.run(main())


@pytest.mark.net
def test_the_answer_waits_for_the_commit() -> None:
    async def story(shell: ElasticBulkShell) -> None:
        asking = asyncio.ensure_future(
            ask(shell, "POST", "/i/_bulk?filter_path=errors", CREATE + DOCUMENT + b'{"delete":{"_id":"x"}}\n')
        )
        delivery = await shell.read()
        assert delivery.frames.slices() == [DOCUMENT]
        assert delivery.frames.sources[0].name == "elastic-bulk"
        await asyncio.sleep(0.1)
        assert not asking.done()
        shell.settle(b"0000000000000000 99")  # of an earlier listener
        assert not asking.done()
        shell.settle(delivery.position)
        status, headers, said = await asking
        assert (status, headers["x-elastic-product"], said["errors"]) == (200, "elasticsearch", True)
        assert [next(iter(item.values()))["status"] for item in said["items"]] == [201, 400]

    serving(story)


@pytest.mark.net
def test_a_large_body_comes_in_pieces_and_is_answered_after_the_last() -> None:
    async def story(shell: ElasticBulkShell) -> None:
        document = b'{"x":"' + b"y" * (PIECE_BYTES // 2) + b'"}\n'
        asking = asyncio.ensure_future(ask(shell, "PUT", "/_bulk", (CREATE + document) * 5))
        taken = 0
        while taken < 5:
            assert not asking.done()
            delivery = await shell.read()
            taken += len(delivery.frames)
            shell.settle(delivery.position)
        assert (await asking)[0] == 200

    serving(story)


@pytest.mark.net
def test_what_clients_ask_before_they_send_is_answered() -> None:
    async def story(shell: ElasticBulkShell) -> None:
        status, headers, said = await ask(shell, "GET", "/")
        assert (status, headers["x-elastic-product"], said["version"]["number"]) == (200, "elasticsearch", "9.4.0")
        assert (await ask(shell, "HEAD", "/"))[0] == 200
        assert (await ask(shell, "GET", "/_license?human=false"))[2]["license"]["status"] == "active"
        for method, path in (
            ("HEAD", "/_index_template/filebeat"),
            ("GET", "/_ilm/policy/filebeat"),
            ("PUT", "/_data_stream/filebeat"),
        ):
            assert (await ask(shell, method, path))[0] == 200
        assert (await ask(shell, "GET", "/i/_search"))[0] == 404
        assert (await ask(shell, "DELETE", "/"))[0] == 405

    serving(story)


BOMB = gzip.compress(b"\n" * (3 << 20))


@pytest.mark.net
@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"x" * 70_000, {}, 413, "too_large"),
        (BOMB, {"content_encoding": "gzip"}, 413, "too_large"),
        (gzip.compress(CREATE)[:-9], {"content_encoding": "gzip"}, 400, ""),
        (gzip.compress(CREATE) + b"more", {"content_encoding": "gzip"}, 400, ""),
        (b"no gzip", {"content_encoding": "gzip"}, 400, ""),
        (b"", {"content_encoding": "br"}, 415, ""),
        (b"no json\n", {}, 400, ""),
    ],
)
def test_a_body_that_cannot_be_taken_is_refused_and_counted(
    body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    async def story(shell: ElasticBulkShell) -> None:
        found, _, said = await ask(shell, "POST", "/_bulk", body, **headers)
        assert (found, said["status"]) == (status, status)
        if reason:
            assert dict((await shell.read()).shed) == {reason: 1}

    serving(story, max_body_bytes=65_536)


@pytest.mark.net
def test_while_too_much_waits_clients_are_asked_to_come_back() -> None:
    async def story(shell: ElasticBulkShell) -> None:
        asking = asyncio.ensure_future(ask(shell, "POST", "/_bulk", CREATE + b'"' + b"x" * 3000 + b'"\n'))
        await shell._filled.wait()
        status, headers, _ = await ask(shell, "POST", "/_bulk", CREATE + b'"' + b"x" * 3000 + b'"\n')
        assert (status, headers["retry-after"]) == (429, "5")
        delivery = await shell.read()
        assert dict(delivery.shed) == {"too_busy": 1}
        shell.settle(delivery.position)
        assert (await asking)[0] == 200

    serving(story, max_held_bytes=6000)


@pytest.mark.net
def test_documents_that_are_not_safe_in_time_are_answered_503() -> None:
    async def story(shell: ElasticBulkShell) -> None:
        assert (await ask(shell, "POST", "/_bulk", CREATE + DOCUMENT))[0] == 503

    serving(story, answer_secs=0.05)


@pytest.mark.net
def test_requests_follow_each_other_on_a_connection_and_a_chunked_one_waits_for_100_continue() -> None:
    async def story(shell: ElasticBulkShell) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", shell.port)
        writer.write(
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\nPOST /_bulk HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"
        )
        assert (await answered(reader))[0] == 200
        assert (await answered(reader))[0] == 100
        body = CREATE + DOCUMENT
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        shell.settle((await shell.read()).position)
        assert (await answered(reader))[0] == 200
        writer.write(b"nonsense\r\n\r\n")
        assert (await answered(reader))[0] == 400
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    serving(story)


@pytest.mark.net
def test_without_credentials_of_the_file_nothing_is_read(tmp_path: Path) -> None:
    async def story(shell: ElasticBulkShell) -> None:
        status, headers, _ = await ask(shell, "POST", "/_bulk", CREATE + DOCUMENT)
        assert (status, "basic" in headers["www-authenticate"]) == (401, True)
        assert dict((await shell.read()).shed) == {"not_authenticated": 1}
        assert (await ask(shell, "GET", "/", authorization="Bearer abc"))[0] == 200

    serving(story, credentials=Credentials(credentials_file(tmp_path, "bearer abc\n")))


class Running:
    """A collector on the memory bus in a thread of its own, as clients that block need it."""

    def __init__(self, shell: ElasticBulkShell) -> None:
        self.shell = shell
        self.bus = open_bus("memory:", BusSettings(), {"reader": ("ringfence.events.v1",)})
        self.rows: list[dict[str, Any]] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    async def _main(self) -> None:
        from ringfence import codec

        await self.bus.open()
        collector = Collector("beats", self.shell, BeatsDecoder())
        stage = CollectStage("bulk", lambda: collector, self.bus, Batching(), 1, SystemClock())
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        running = asyncio.ensure_future(stage.run(self._stop))
        await stage.opened.wait()
        self._ready.set()
        await running
        await self.bus.join("reader", ["ringfence.events.v1"])
        while records := await self.bus.read("reader", 100, 1 << 30, 0.01):
            self.rows += [row for _, record in records for row in codec.decode(record).frame.to_dicts()]
            if len(records) < 100:
                break
        await self.bus.close()

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)


def documents(count: int) -> list[dict[str, Any]]:
    return [{"_op_type": "create", "_index": "logs-x", "@timestamp": TIME, "message": f"m{number}"} for number in range(count)]


@pytest.mark.net
@pytest.mark.parametrize("compressed", [False, True])
def test_the_elasticsearch_client_sends_documents(compressed: bool) -> None:
    with Running(ElasticBulkShell("127.0.0.1", 0)) as running:
        client = Elasticsearch(f"http://127.0.0.1:{running.shell.port}", http_compress=compressed)
        assert client.ping()
        assert client.info()["version"]["number"] == "9.4.0"
        sent, errors = helpers.bulk(client, documents(1200))
        again, _ = helpers.bulk(client, documents(1200))
        with pytest.raises(helpers.BulkIndexError):
            helpers.bulk(client, [{"_op_type": "delete", "_index": "i", "_id": "x"}])
        with pytest.raises(ApiError):
            client.search(index="x")
        client.close()

    assert (sent, errors, again) == (1200, [], 1200)
    assert len(running.rows) == 2400
    assert len({row["ringfence.event.position"] for row in running.rows}) == 1200
    assert {row["message"] for row in running.rows} == {f"m{number}" for number in range(1200)}


@pytest.mark.net
@needs_openssl
def test_the_elasticsearch_client_logs_in_over_tls(tmp_path: Path) -> None:
    ca = authority(tmp_path)
    server = issued(ca, "server")
    known = Credentials(credentials_file(tmp_path, "apikey id:key\nbasic ann:secret\n"))
    with Running(ElasticBulkShell("127.0.0.1", 0, TlsFiles(certificate=server.certificate, key=server.key), known)) as running:
        address = f"https://127.0.0.1:{running.shell.port}"
        for login in ({"api_key": ("id", "key")}, {"basic_auth": ("ann", "secret")}):
            client = Elasticsearch(address, ca_certs=str(ca.certificate), **login)  # type: ignore[arg-type]
            assert helpers.bulk(client, documents(10)) == (10, [])
            client.close()
        stranger = Elasticsearch(address, ca_certs=str(ca.certificate), basic_auth=("ann", "x"))
        with pytest.raises(AuthenticationException):
            stranger.info()
        stranger.close()

    assert len(running.rows) == 20


FILEBEAT = shutil.which("filebeat")


@pytest.mark.net
@pytest.mark.skipif(FILEBEAT is None, reason="filebeat is not installed: it is in the packages of elastic.co, not in Debian")
def test_filebeat_sends_the_lines_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "in.log").write_text("".join(f"line {number}\n" for number in range(100)))
    with Running(ElasticBulkShell("127.0.0.1", 0)) as running:
        (tmp_path / "filebeat.yml").write_text(
            "filebeat.inputs: [{type: filestream, id: a, paths: ['"
            + str(tmp_path / "in.log")
            + "'], prospector.scanner.fingerprint.enabled: false, file_identity.native: ~}]\n"
            f"output.elasticsearch: {{hosts: ['http://127.0.0.1:{running.shell.port}']}}\nsetup.template.enabled: false\n"
        )
        arguments = [
            str(FILEBEAT),
            "--once",
            "-c",
            tmp_path / "filebeat.yml",
            "--path.data",
            tmp_path / "data",
            "--path.logs",
            tmp_path / "logs",
        ]
        subprocess.run(
            [*map(str, arguments), "-E", "filebeat.config.modules.enabled=false"], check=True, timeout=60, env={**os.environ}
        )

    assert sorted(row["message"] for row in running.rows) == sorted(f"line {number}" for number in range(100))


def test_the_entry_point_builds_the_collector_and_claims_its_port() -> None:
    settings = KIND.settings.model_validate({"listen": "127.0.0.1:9200", "credentials": "/etc/senders"})

    assert KIND.build(settings, BuildContext("bulk", EMPTY)).module == "beats"
    assert list(KIND.resources(settings)) == ["tcp 127.0.0.1:9200"]
