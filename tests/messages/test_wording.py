"""Test that messages hold whatever an error says, on one line, and survive one that cannot."""

from __future__ import annotations

import pytest

from batchscore.messages.wording import counted, counted_were, error_text, reason


class SpoiledError(Exception):
    """An error whose text is what its argument makes of it."""

    def __str__(self) -> str:
        made: str = self.args[0]()
        return made


def _panic() -> str:
    raise SystemExit


def _interrupt() -> str:
    raise KeyboardInterrupt


def test_a_count_has_its_right_plural() -> None:
    """One of a thing is singular, none or several are plural, in the regular forms of English."""
    assert counted(1, "row") == "1 row"
    assert counted(0, "row") == "0 rows"
    assert counted(1204, "batch") == "1,204 batches"
    assert counted(2, "class") == "2 classes"
    assert counted(2, "key") == "2 keys"
    assert counted(2, "category") == "2 categories"
    assert counted(1, "row group") == "1 row group"
    assert counted(2, "row group") == "2 row groups"
    assert [counted_were(n, "shard") for n in (1, 2)] == ["1 shard was", "2 shards were"]


@pytest.mark.parametrize("text", [lambda: 1 / 0, lambda: None, lambda: "", _panic])
def test_an_error_that_cannot_say_its_text_is_reported_by_its_class(text: object) -> None:
    """Its own error, a text that is none, and an empty one leave the class."""
    assert error_text(SpoiledError(text)) == ""
    assert reason(SpoiledError(text)) == "SpoiledError"


def test_an_errors_text_is_one_short_line() -> None:
    """Line ends go, and 300 characters stay."""
    assert reason(ValueError("a\n b")) == error_text(ValueError("a\n b")) == "a b"
    assert len(reason(ValueError("x" * 1000))) == 300


def test_an_interrupt_while_telling_goes_through() -> None:
    """Ctrl-C is no trait of the error that is being reported."""
    with pytest.raises(KeyboardInterrupt):
        reason(SpoiledError(_interrupt))
