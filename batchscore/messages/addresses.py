"""Addresses as messages and logs may show them: without credentials, query values and fragments."""

from __future__ import annotations

import hashlib
import logging
import re
from urllib.parse import unquote_plus

HIDDEN = "***"

_OF_THIS_MACHINE = frozenset({"file", "local", "memory"})
# What precedes an `@` is a user's login or a container there, and no secret unless it has a colon.
_SHOWS_USER = frozenset(
    {"abfs", "abfss", "wasb", "wasbs", "az", "sftp", "ssh", "hdfs", "webhdfs", "ftp", "smb"}
)
# A bucket has no port, so a colon before an `@` begins a secret.
_WITHOUT_PORT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "wasb", "wasbs", "az", "oss"})
_WEB = frozenset({"http", "https"})
# They select which bytes are read and are no credentials; identities need them.
_SELECTORS = frozenset(
    {"versionid", "version", "generation", "snapshot", "download", "raw", "alt", "format"}
)

# Words that end a name, as in `api_key` and `X-Amz-Signature`; the short ones must begin it too.
_CREDENTIAL = re.compile(
    r"(?:key(?:_?id)?|secret|token|passw(?:or)?d|passphrase|credentials?|signature"
    r"|(?:^|[^a-z])(?:auth|authorization|jwt|sig|sas|pwd|bearer))(?:$|[^a-z])",
    re.IGNORECASE,
)
_JSON_WEB_TOKEN = re.compile(r"eyJ[\w-]{8,}\.")
# What tells two addresses apart whose query's values are hidden.
_TAG = re.compile(rf"{re.escape(HIDDEN)}=[0-9a-f]{{16}}")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*(?:::|://))")
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:]*)(:[0-9]{0,5})?")
# Elsewhere than on the web a `?` is a wildcard, unless a name and `=` follow.
_QUERY = re.compile(r"\?(?=[^=&/?*\[\]]+=)")
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,40}://[^\s\"<>`]+")
_BEHIND = re.compile(r"['()\[\]{}:;,.…]*$")


def redacted_address(address: str) -> str:
    """Returns an address without its credentials, query values and fragment.

    Local paths have none of them and are returned as they are.
    """
    if "://" not in address:
        return address
    return "::".join(_redacted_link(link) for link in _CHAIN.split(address))


def holds_secret(address: str) -> bool:
    """Whether an address holds what may be a credential: user information, a query, a fragment.

    A query that only selects a version or a format is none.
    """
    return redacted_address(_without_selectors(address)) != _without_selectors(address)


def holds_credential(address: str) -> bool:
    """Whether an address of data holds a credential: a user, a fragment, or a query named as one.

    Other queries may select what is read. Their values are not shown or stored.
    """
    scheme, separator, rest = address.partition("://")
    kind = scheme.lower()
    query = _query(kind, rest)
    if not separator or "::" in address or not query:
        return holds_secret(address)
    if kind in _OF_THIS_MACHINE:
        return False
    return bool(_user_end(kind, rest)) or "#" in rest or any(map(_is_secret, query.split("&")))


def stored_address(address: str) -> str:
    """Returns an address as records name it: a hash is in place of the query's values.

    Local paths, and queries that only select a version, are returned as they are.
    """
    if not holds_secret(address):
        return address
    tag = hashlib.sha256(address.encode()).hexdigest()[:16]
    return f"{redacted_address(address)}&{HIDDEN}={tag}"


def redacted_text(text: str) -> str:
    """Returns a text in which each address that it names is redacted."""
    return _IN_TEXT.sub(_redacted_match, text) if "://" in text else text


class RedactingFormatter(logging.Formatter):
    """Formats records of a log with the addresses in them redacted, those of tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record's line."""
        return redacted_text(super().format(record))


def _redacted_match(match: re.Match[str]) -> str:
    behind = _BEHIND.search(match[0])
    end = behind.start() if behind else len(match[0])
    return redacted_address(match[0][:end]) + match[0][end:]


def _redacted_link(link: str) -> str:
    scheme, separator, rest = link.partition("://")
    kind = scheme.lower()
    if not separator or not _SCHEME.fullmatch(scheme) or kind in _OF_THIS_MACHINE:
        return link
    user = _user_end(kind, rest)
    shown = f"{HIDDEN}@{rest[user:]}" if user else rest
    return f"{scheme}://{_without_query(kind, shown)}"


def _user_end(kind: str, rest: str) -> int:
    """Returns where the host begins behind user information; 0 where there is none to hide.

    A secret may hold `/`, `?` and `@`, so what has a colon is taken to reach to the last `@`.
    """
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    has_port = kind not in _WITHOUT_PORT and _HOST_AND_PORT.fullmatch(authority)
    if ":" in authority and not has_port:
        return rest.rfind("@") + 1
    return 0 if kind in _SHOWS_USER else authority.rfind("@") + 1


def _without_query(kind: str, rest: str) -> str:
    if kind in _WEB:
        rest, hash_, _ = rest.partition("#")
        path, mark, query = rest.partition("?")
        return path + mark + _hidden_values(query) + (f"{hash_}{HIDDEN}" if hash_ else "")
    found = _QUERY.search(rest)
    return rest if found is None else rest[: found.end()] + _hidden_values(rest[found.end() :])


def _query(kind: str, rest: str) -> str:
    if kind in _WEB:
        return rest.partition("#")[0].partition("?")[2]
    found = _QUERY.search(rest)
    return rest[found.start() + 1 :] if found else ""


def _is_secret(pair: str) -> bool:
    """Whether a part of a query looks like a credential: by its name, or for want of one."""
    name, equals, value = pair.partition("=")
    named = bool(_CREDENTIAL.search(unquote_plus(name)))
    return bool(pair) and (not equals or named or bool(_JSON_WEB_TOKEN.match(value)))


def _hidden_values(query: str) -> str:
    return "&".join(_hidden_value(pair) for pair in query.split("&") if query)


def _hidden_value(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    if _TAG.fullmatch(pair):
        return pair
    return f"{name}={HIDDEN}" if equals else HIDDEN


def _without_selectors(address: str) -> str:
    """Returns an address without a query all of whose names only select what is read."""
    path, _, query = address.partition("?")
    names = [unquote_plus(pair.partition("=")[0]).lower() for pair in query.split("&")]
    harmless = "=" in query and "#" not in query and set(names) <= _SELECTORS
    return path if harmless else address
