"""Test that credentials in addresses do not show, and that paths which only look alike do."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import InputError
from batchscore.messages.addresses import (
    RedactingFormatter,
    holds_secret,
    redacted_address,
    redacted_text,
)
from batchscore.messages.wording import one_line

SECRETS = [
    ("s3://KEY:hunter2@bucket/x", "s3://***@bucket/x"),
    ("s3://KEY:hun/ter2/WITH@bucket/x", "s3://***@bucket/x"),
    ("s3://KEY:hun@te/r2@bucket/x", "s3://***@bucket/x"),
    ("s3://KEY:hunt%2Fer2@bucket", "s3://***@bucket"),
    ("s3://KEY:1234/hunter2@bucket", "s3://***@bucket"),
    ("s3://KEY:hun?te#r2@bucket/x", "s3://***@bucket/x"),
    ("https://hunter2@host/x", "https://***@host/x"),
    ("https://host:8080/x?auth=hunter2", "https://host:8080/x?auth=***"),
    ("https://host/x?jwt=hunter2&page=1", "https://host/x?jwt=***&page=***"),
    ("https://host/x?hunter2", "https://host/x?***"),
    ("https://host/x#access=hunter2", "https://host/x#***"),
    ("HTTPS://a.blob.core.windows.net/c/x?sv=1&sig=hun ter2", None),
    ("https://b.s3.amazonaws.com/x?X-Amz-Signature=hunter2", None),
    ("https://storage.googleapis.com/b/x?X-Goog-Signature=hunter2", None),
    ("s3://bucket/x?auth=hunter2", "s3://bucket/x?auth=***"),
    ("abfss://container:hunter2@account.dfs.core.windows.net/x", None),
    ("sftp://me:hunter2@host/x", "sftp://***@host/x"),
    ("simplecache::https://me:hunter2@host/x", "simplecache::https://***@host/x"),
    ("zip://a?b=hunter2::s3://KEY:hunter2@bucket/x", "zip://a?b=***::s3://***@bucket/x"),
]
OPEN = [
    "/data/key=5/token=abc/sig=1/x.parquet",
    "data/secret=x?y=1",
    "file:///data/token=abc/key=1/a?b=c@d",
    "memory://a/key=1",
    "s3://bucket/key=1/token=abc/sig=9/x.parquet",
    "s3://bucket/user@example.com/x.parquet",
    "s3://bucket/part-?.parquet",
    "s3://bucket/m?/day=*/x.parquet",
    "s3://bucket/a:b/c@d",
    "https://host:8080/a@b/key=1.parquet",
    "http://[::1]:8080/x@y",
    "hdfs://me@namenode:8020/x",
    "abfss://container@account.dfs.core.windows.net/key=1",
    "gs://bucket/k=a#b/x",
]


@pytest.mark.parametrize(("address", "wanted"), SECRETS)
def test_credentials_do_not_show(address: str, wanted: str | None) -> None:
    """User information, query values and fragments are hidden, whatever characters they hold."""
    shown = redacted_address(address)
    assert "hunter2" not in shown.replace("/", "")
    assert "ter2" not in shown
    assert wanted in (None, shown)
    assert holds_secret(address)


@pytest.mark.parametrize("address", OPEN)
def test_what_only_looks_like_a_credential_is_left_alone(address: str) -> None:
    """Paths keep folders such as `key=`, wildcards, ports, containers and logins."""
    assert redacted_address(address) == address
    assert not holds_secret(address)


def test_a_query_that_selects_a_version_is_no_credential() -> None:
    """Such an address may be used, though messages do not show the query's values."""
    assert not holds_secret("s3://bucket/x.parquet?versionId=abc")
    assert not holds_secret("https://host/x.parquet?download=true")
    assert holds_secret("https://host/x.parquet?download=true&auth=abc")
    assert redacted_address("s3://bucket/x?versionId=abc") == "s3://bucket/x?versionId=***"


@pytest.mark.parametrize("address", [a for a, _ in SECRETS if " " not in a])
@pytest.mark.parametrize("text", ["{}", "({}): gone", "url=URL('{}'), x", 'at "{}".', "a\n{}\nb"])
def test_messages_of_libraries_do_not_show_them(address: str, text: str) -> None:
    """An error of any class, a line and a log record hide them; the words around stay."""
    shown = redacted_text(text.format(address))
    assert "ter2" not in shown
    before, _, after = text.partition("{}")
    assert shown.startswith(before)
    assert shown.endswith(after)
    record = logging.LogRecord("x", 1, "f", 1, "%s", (text.format(address),), None)
    others = [str(InputError(text.format(address))), RedactingFormatter().format(record)]
    assert all("ter2" not in other for other in (*others, one_line(text.format(address), 300)))
    # The cut must not come before the `@` is seen.
    assert "hun" not in one_line(f"{'x' * 60} {address}", 80)


@given(st.text(), st.sampled_from(["", "s3://", "https://", "a://b:", "::", "zip::s3://k:"]))
def test_any_text_is_redacted_once(text: str, start: str) -> None:
    """Whatever the text, redacting ends, and changes nothing when it is done again."""
    once = redacted_text(start + text)
    assert redacted_text(once) == once
    assert isinstance(redacted_address(start + text), str)


@given(st.text(st.characters(codec="ascii", exclude_characters=' \n\t"<>`'), min_size=1))
def test_no_secret_of_a_user_survives(secret: str) -> None:
    """Whatever a password is made of, none of it is left before the host."""
    address = f"s3://KEY:{secret}@bucket/x"
    assert redacted_address(address) == "s3://***@bucket/x"
