"""What an engine answers whose jobs end with their launcher, so that nobody else asks for them."""

from __future__ import annotations

from collections.abc import Sequence

from batchscore.plan import Plan
from batchscore.runs.submission import JobState, Submission


class Watched:
    """Methods of `Engine` about jobs that go on alone, of which there are none."""

    def submission(self, plan: Plan, flags: Sequence[str]) -> Submission | None:
        """Returns None: the pipeline ends with this process."""
        return None

    def job_state(self, submission: Submission) -> JobState:
        """Returns `unknown`."""
        return "unknown"

    def job_error(self, submission: Submission) -> str:
        """Returns nothing."""
        return ""

    def cancel(self, submission: Submission) -> bool:
        """Returns False."""
        return False
