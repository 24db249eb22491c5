"""What the server that workers are forked from imports for torch, once for all of them."""

from __future__ import annotations

import gc

from batchscore.system.imports import uncollected

with uncollected():
    import batchscore.models.backends.torch.predictor  # noqa: F401

# A worker that searches what it was forked with for garbage would copy all of it.
gc.freeze()
