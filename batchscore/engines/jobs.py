"""Jobs that go on without their launchers, asked for and cancelled at whatever engine has them."""

from __future__ import annotations

from batchscore.engines.registry import find_engine
from batchscore.errors import JobFileError
from batchscore.runs.submission import JobState, Submission


def job_state(submission: Submission) -> JobState:
    """Asks the engine of a job for its state; `unknown` if this machine has no such engine."""
    try:
        return find_engine(submission.engine).job_state(submission)
    except JobFileError:
        return "unknown"


def job_error(submission: Submission) -> str:
    """Asks the engine of a job for what ended it, as a trace; empty if that is not known."""
    try:
        return find_engine(submission.engine).job_error(submission)
    except JobFileError:
        return ""


def cancel_job(submission: Submission) -> bool:
    """Asks the engine of a job to end it; False if that cannot be asked, or there is none."""
    try:
        return find_engine(submission.engine).cancel(submission)
    except JobFileError:
        return False
