"""pandas, which the server that workers are forked from imports where each worker would."""

from __future__ import annotations

import gc

from batchscore.system.imports import uncollected

with uncollected():
    import pandas  # noqa: F401

# A worker that looks through what it was forked with would copy all of it.
gc.freeze()
