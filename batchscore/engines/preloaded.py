"""What the server that workers are forked from imports, once for all of them."""

from __future__ import annotations

import logging

# Before Beam is imported: it warns, at import, of parts that nobody here uses.
logging.basicConfig(level=logging.ERROR)

import batchscore.engines.direct  # noqa: E402
import batchscore.transforms  # noqa: E402, F401
