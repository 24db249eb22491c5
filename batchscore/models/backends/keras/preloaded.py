"""What the server that workers are forked from imports for Keras, once for all of them."""

from __future__ import annotations

import gc

from batchscore.models.backends.keras.backend import KerasBackend
from batchscore.system.imports import uncollected

with uncollected():
    KerasBackend().prepare()

# A worker that searches what it was forked with for garbage would copy all of it.
gc.freeze()
