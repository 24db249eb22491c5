"""Beam's job server, which may die while Flink goes on with a pipeline."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import grpc

from batchscore.engines.background import Background
from batchscore.engines.metrics import listed_metrics
from batchscore.engines.protocol import Metrics
from batchscore.errors import FailedError
from batchscore.messages.wording import one_line, reason

TERMINAL = frozenset({"DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED"})
"""Beam's names of the states that a pipeline does not leave."""


def sent(pipeline: Any) -> Any:
    """Sends a pipeline to the job server, and returns what Beam returns for it.

    Raises:
        FailedError: The server has died since it was last looked for, or dies meanwhile.
    """
    try:
        return pipeline.run()
    except grpc.FutureTimeoutError as error:  # it has no text
        raise _untaken("it does not listen any more") from error
    except grpc.RpcError as error:
        raise _untaken(_said(error)) from error


def await_pipeline(result: Any, handle: Background) -> Metrics:
    """Waits for the end of a pipeline that the job server took, and returns Beam's metrics.

    Raises:
        Exception: It failed, or the server does not say any more how it is. If Flink has the job
            then, the handle says why it is unheard.
    """
    _silence_streams()
    try:
        handle.note_job(result)
        result.wait_until_finish()
        return listed_metrics(result)
    except Exception as error:
        lost = _unanswered(result, error)
        if lost is not None and not handle.job:
            raise _untaken(lost) from error
        handle.unheard = lost
        raise


def _unanswered(result: Any, error: Exception) -> str | None:
    """Returns why the job server does not say how a pipeline ended; None if it does."""
    try:
        if result.state in TERMINAL:
            return None
    except grpc.RpcError as lost:
        error = lost
    return _said(error)


def _said(error: BaseException) -> str:
    details = getattr(error, "details", None)
    return one_line(details(), 200) if callable(details) else reason(error)


def _untaken(lost: str) -> FailedError:
    return FailedError(
        f"engine flink: Beam's job server stopped answering before Flink had the job ({lost}); "
        "start the job server, and run again"
    )


@cache
def _silence_streams() -> None:
    """Keeps Beam's threads from printing a trace if the server dies that they listen to."""
    before = threading.excepthook

    def report(failed: threading.ExceptHookArgs) -> None:
        if not issubclass(failed.exc_type, grpc.RpcError):
            before(failed)

    threading.excepthook = report
