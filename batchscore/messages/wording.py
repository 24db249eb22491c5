"""How messages put what comes from outside: on one line, shortened, with the nearest name."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

from batchscore.messages.addresses import redacted_text

_NAMES_SHOWN = 20
_HISSING = ("s", "x", "ch", "sh")
_COMPARED_CHARACTERS = 80
_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EACCES: "grant the permission",
    errno.EPERM: "grant the permission",
    errno.EROFS: "mount its file system for writing",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """Says which known name is most like `name`, or lists the known names."""
    names = sorted(known)
    matches = difflib.get_close_matches(name[:_COMPARED_CHARACTERS], names, n=1)
    if matches:
        return f"nearest: {one_line(repr(matches[0]))}"
    if not names:
        return "there are none"
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return f"expected one of {', '.join(one_line(each) for each in names[:_NAMES_SHOWN])}{more}"


def count(number: float) -> str:
    """Returns a count with thousands marked: 336,776; an integer exactly, however large."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.0f}"


def counted(number: int, noun: str) -> str:
    """Returns a count with its noun in the right number: `1 row`, `1,204 batches`, `0 shards`.

    Args:
        number: How many there are.
        noun: Its last word is what is counted, in the singular.
    """
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def counted_were(number: int, noun: str) -> str:
    """Returns a count with its noun and verb: `1 row was`, `2 rows were`."""
    return f"{counted(number, noun)} {of_count(number, 'was', 'were')}"


def plural(noun: str) -> str:
    """Returns the plural of a regular English noun."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(_HISSING) else f"{noun}s"


def with_article(noun: str) -> str:
    """Returns a noun after `a` or `an`, by its first letter; NumPy's array is an ndarray."""
    return f"{'an' if noun[:1] in 'AEIOUaeiou' or noun == 'ndarray' else 'a'} {noun}"


def type_of(value: object) -> str:
    """Returns the name of a value's type after its article: `an int`, `a DataFrame`."""
    return with_article(type(value).__name__)


def of_count(number: int, one: str, many: str) -> str:
    """Returns what goes with a count, such as `was` with 1 and `were` with any other number."""
    return one if number == 1 else many


def one_line(text: object, width: int = 80) -> str:
    """Returns a text as one line without control characters, of at most `width` characters.

    Credentials and query values in addresses do not show in it.
    """
    flat = " ".join(redacted_text(str(text)).split())
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in flat)
    return line if len(line) <= width else f"{line[: width - 1]}…"


def reason(error: BaseException) -> str:
    """Returns an error's text on one line of at most 300 characters; else its class."""
    return error_text(error) or type(error).__name__


def error_text(error: BaseException) -> str:
    """Returns an error's text on one line of at most 300 characters; empty where it has none.

    An error that fails to say its text has none.
    """
    try:
        return one_line(error, 300)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException:
        return ""


def remedy_of(error: OSError, otherwise: str) -> str:
    """Returns what helps where a file could not be read or written; `otherwise` if unknown."""
    return _REMEDIES.get(error.errno or 0, otherwise)
