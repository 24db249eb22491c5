"""Sends OpenLineage events on a thread, so that no endpoint fails or delays a run."""

from __future__ import annotations

import importlib.util
import logging
import os
import queue
import threading
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path

from batchscore.commands.lineage_events import DatasetFacts, LineageRun, Moment, event
from batchscore.messages.addresses import redacted_address
from batchscore.messages.wording import one_line, reason

SECONDS = 5.0
"""So long the end of a run waits for its events to be sent."""
_PREFIX = "OPENLINEAGE__"
_NAMED = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")
_FILES = (Path("openlineage.yml"), Path("~/.openlineage/openlineage.yml"))
_NAMESPACE = "OPENLINEAGE_NAMESPACE"
_PARENT = "OPENLINEAGE_PARENT_ID"
_LATE = "the run's outcome does not change"


def is_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Tells whether OpenLineage's own configuration says where events go."""
    if environment.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    named = any(environment.get(name) for name in _NAMED)
    return (
        named
        or any(name.startswith(_PREFIX) for name in environment)
        or any(path.expanduser().is_file() for path in _FILES)
    )


def is_installed() -> bool:
    """Tells whether the library that sends events is installed."""
    try:
        return importlib.util.find_spec("openlineage.client") is not None
    except ModuleNotFoundError:
        return False


class Sender:
    """Sends the events of one run in their order, on a thread of its own.

    Args:
        job: The job's name.
        params: The job's parameters, as text.
        environment: Where OpenLineage is configured.
    """

    def __init__(
        self, job: str, params: Mapping[str, str], environment: Mapping[str, str] = os.environ
    ) -> None:
        namespace = environment.get(_NAMESPACE) or "default"
        parent = environment.get(_PARENT, "")
        self._run = LineageRun(str(uuid.uuid4()), namespace, job, params, parent)
        self._addresses = [
            value
            for name, value in environment.items()
            if name.startswith("OPENLINEAGE") and "://" in value
        ]
        self._events: queue.Queue[tuple[DatasetFacts, Moment] | None] = queue.Queue()
        self._failure = ""
        self._thread = threading.Thread(target=self._send_all, name="lineage", daemon=True)
        self._thread.start()

    def send(self, datasets: DatasetFacts, moment: Moment) -> None:
        """Has an event sent, and does not wait for that."""
        self._events.put((datasets, moment))

    def close(self, seconds: float = SECONDS) -> str | None:
        """Waits until all events are sent, but not for long; returns what went wrong, or None."""
        self._events.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            why = f" ({self._failure})" if self._failure else ""
            return (
                f"OpenLineage: events were not taken within {seconds:g} s{why}; check its endpoint "
                f"and its configuration, such as OPENLINEAGE_URL; {_LATE}"
            )
        if self._failure:
            return f"OpenLineage: an event could not be sent ({self._failure}); {_LATE}"
        return None

    def _why(self, error: Exception) -> str:
        """Returns an error's text without what is secret in addresses, which may be malformed."""
        text = str(error)
        for address in self._addresses:
            text = text.replace(address, redacted_address(address))
        return one_line(text, 300) or reason(error)

    def _send_all(self) -> None:
        try:
            # What its client logs is said once, at the end.
            logging.getLogger("openlineage").setLevel(logging.CRITICAL)
            logging.getLogger("urllib3").setLevel(logging.ERROR)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from openlineage.client import OpenLineageClient

                client = OpenLineageClient()
        except Exception as error:
            self._failure = self._why(error)
            return
        while (found := self._events.get()) is not None:
            try:
                client.emit(event(self._run, *found))
            except Exception as error:
                self._failure = self._why(error)
        try:
            client.close(timeout=SECONDS)
        except Exception as error:
            self._failure = self._why(error)
