"""Test that no command prints or stores a credential that an address or a server's answer holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from batchscore.messages.addresses import holds_credential
from tests.factory import (
    change_job,
    make_rows,
    read_tree,
    run_cli,
    run_json,
    write_job,
    write_shard,
)
from tests.outputs import rename_shards
from tests.servers import answering, free_port

pytestmark = pytest.mark.slow

SECRET = "hunter2"
ADDRESSES = [
    "s3://KEY:{}/WITH/SLASH@bucket/x",
    "https://127.0.0.1:1/x.parquet?auth={}",
    "https://127.0.0.1:1/x.parquet?page=1&jwt={}",
]


@contextmanager
def redirecting(target: str) -> Iterator[int]:
    """A server that answers each request by a redirect to a signed address, which says 403."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            signed = "?" in self.path
            self.send_response(403 if signed else 302)
            self.send_header("Content-Length", "0")
            if not signed:
                self.send_header("Location", target)
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

    with answering(Handler) as port:
        yield port


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("flags", [(), ("--json",), ("--debug",)], ids=["plain", "json", "debug"])
def test_commands_refuse_addresses_with_credentials_and_do_not_print_them(
    tmp_path: Path, address: str, flags: tuple[str, ...]
) -> None:
    """Whichever command takes the address, exit 2 and no trace of the secret."""
    job, given = write_job(tmp_path), address.format(SECRET)
    commands: list[tuple[object, ...]] = [
        ("check", job, "--set", f"input.path={given}"),
        ("run", job, "--set", f"model.path={given}"),
        ("run", job, "--set", f"output.path={given}"),
        ("profile", given),
        ("compare", given, tmp_path / "in"),
        ("compare", tmp_path / "in", given),
        ("runs", given),
        ("trace", given, "id=1"),
        ("profile", tmp_path / "in", "-o", given),
    ]
    for command in commands:
        done = run_cli(*command, *flags)
        text = done.output + str(done.stderr)
        assert (done.exit_code, SECRET in text) == (2, False), (command, text)


def test_a_job_file_behind_a_credential_is_not_printed_whole(tmp_path: Path) -> None:
    """A job file's own address may not be readable; the message hides what it holds."""
    for flags in ((), ("--json",), ("--debug",)):
        done = run_cli("run", f"http://me:{SECRET}@127.0.0.1:{free_port()}/job.yaml?sig=x", *flags)
        assert SECRET not in done.output + str(done.stderr)
        assert done.exit_code == 2


def test_answers_of_servers_do_not_show_what_they_were_asked(tmp_path: Path) -> None:
    """A signed address that a server redirects to, and a store's own endpoint, are redacted."""
    job = write_job(tmp_path)
    with redirecting(f"/x.parquet?X-Amz-Signature={SECRET}") as port:
        change_job(tmp_path, {"input.path": f"http://127.0.0.1:{port}/x.parquet"})
        for flags in ((), ("--json",), ("--debug",)):
            done = run_cli("run", job, *flags)
            assert done.exit_code == 2
            assert SECRET not in done.output + str(done.stderr)
            assert "403" in done.output + str(done.stderr)


@contextmanager
def exporting(tables: Mapping[str, bytes]) -> Iterator[str]:
    """A server that gives the file that a query names, as services that export tables do."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = tables.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("ETag", str(hash(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        do_HEAD = do_GET  # noqa: N815

    with answering(Handler) as port:
        yield f"http://127.0.0.1:{port}"


def test_an_address_with_a_query_is_read_and_its_values_are_not_reported(tmp_path: Path) -> None:
    """Two queries are two shards; no output, no file and no remedy shows a value of theirs."""
    job, names = write_job(tmp_path), [f"/t?table={SECRET}{n}&page=1" for n in range(2)]
    shards = [write_shard(tmp_path / f"s{n}", make_rows(50, 50 * n)) for n in range(2)]
    with exporting({n: s.read_bytes() for n, s in zip(names, shards, strict=True)}) as server:
        change_job(tmp_path, {"input.path": [server + name for name in names]})
        commands: list[tuple[object, ...]] = [("check", job), ("run", job), ("trace", job, "id=7")]
        commands += [
            ("profile", server + names[0]),
            ("compare", server + names[0], server + names[0]),
        ]
        for command in (*commands, ("run", job), ("runs", job), ("run", job, "--rescore")):
            for done in (run_cli(*command), run_cli(*command, "--json")):
                assert (done.exit_code, SECRET in done.output) == (0, False), done.output
        found = run_json("run", job)
    assert (found["status"], found["rows"]["input"]) == ("unchanged", 100)
    paths = [shard["path"] for shard in found["inputs"]]
    assert len({*paths}) == 2
    assert all(path.startswith(f"{server}/t?table=***&page=***&***=") for path in paths)
    assert not any(SECRET.encode() in content for content in read_tree(tmp_path / "out").values())


def test_an_address_with_a_query_that_is_published_keeps_its_path(tmp_path: Path) -> None:
    """An output of an earlier version, which stored the address whole, stays unchanged."""
    job, name = write_job(tmp_path), "/t?table=x"
    with exporting({name: write_shard(tmp_path / "s").read_bytes()}) as server:
        change_job(tmp_path, {"input.path": server + name})
        assert run_json("run", job)["status"] == "published"
        rename_shards(tmp_path / "out", lambda shard: {**shard, "path": server + name})
        found = run_json("run", job)
        assert (found["status"], found["inputs"][0]["path"]) == ("unchanged", server + name)


def test_a_query_that_is_named_as_a_credential_is_refused() -> None:
    """Names that end in a credential's word are, words that merely hold one are not."""
    for query in ("auth=x", "jwt=x", "api_key=x", "X-Amz-Signature=x", "sig=x", "AWSAccessKeyId=x"):
        assert holds_credential(f"https://host/x?page=1&{query}"), query
    for query in ("x", "page=1#x", "page=eyJhbGciOiJIUzI1NiJ9.e30.x", "a=1&x", "password=x"):
        assert holds_credential(f"https://host/x?{query}"), query
    assert holds_credential("s3://KEY:hun?te=r2@bucket/x")
    assert holds_credential("https://me:hunter2@host/x?page=1")
    for query in ("table=x", "author=x", "design=1", "tokenizer=x", "keyword=x", "q=a@b:c"):
        assert not holds_credential(f"https://host/x?{query}"), query


def test_folders_like_credentials_are_scored_and_named(tmp_path: Path) -> None:
    """Shards below `key=`, `token=` and `sig=` are scored, and their paths are not redacted."""
    job = write_job(tmp_path)
    write_shard(tmp_path / "more/key=5/token=abc/sig=x/0.parquet")
    change_job(tmp_path, {"input.path": "more/key=5"})
    done = run_cli("run", job)
    assert done.exit_code == 0, done.output
    stored = b"".join(read_tree(tmp_path / "out/_batchscore/runs").values())
    assert b"token=abc/sig=x/0.parquet" in stored
