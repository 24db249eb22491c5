"""Test that stages of one run share what tells whether its model and code work."""

from __future__ import annotations

import secrets

from batchscore.stages.trial import trial_of


def test_a_trial_is_shared_within_a_run() -> None:
    """Stages of a run see what its writer scored; another run and a rehearsal do not."""
    run = secrets.token_hex(8)
    trial_of(run, passed=False).passed = True
    trial_of(None, passed=False).passed = True
    assert trial_of(run, passed=False).passed
    assert not trial_of(secrets.token_hex(8), passed=False).passed
    assert not trial_of(None, passed=False).passed
    assert trial_of(secrets.token_hex(8), passed=True).passed
