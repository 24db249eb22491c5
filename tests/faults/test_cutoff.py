"""Test what the harness that cuts disks off does where it cannot."""

from __future__ import annotations

import sys

import pytest

from tests.faults import cutoff


def test_what_cannot_be_mounted_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the commands of the system no disk is cut off, and that is printed."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["cutoff"])
    assert cutoff.main() == 0
    assert "left out: disks that are cut off need root" in capsys.readouterr().out
