"""That a device's memory ran out in a run: how many rows a call had from then on."""

from __future__ import annotations

import secrets
from contextlib import suppress

from batchscore.runs import layout
from batchscore.storage.store import Store


def note_halved(store: Store, run: str, rows: int) -> None:
    """Writes down for the run's last step that a process calls the network with fewer rows."""
    path = f"{layout.halvings(run)}/{secrets.token_hex(8)}.json"
    store.write_json(path, {"call_rows": rows}, flush=False)


def fewest_rows(store: Store, run: str) -> int | None:
    """Returns the fewest rows that calls of the run were halved to; None where none were."""
    folder = layout.halvings(run)
    found = []
    for name in store.names(folder):
        # A note that is damaged is no reason to fail a run.
        with suppress(OSError, ValueError, LookupError, TypeError):
            found.append(int(store.read_json(f"{folder}/{name}")["call_rows"]))
    return min(found, default=None)
