"""What the server that workers are forked from imports, once for all of them."""

from __future__ import annotations

import gc
import logging

from batchscore.messages.addresses import RedactingFormatter
from batchscore.system.imports import uncollected
from batchscore.system.json_lines import JsonFormatter, is_wanted
from batchscore.system.streams import keep_writing

# What a user's function prints must not fail its rows where nobody reads it any more. First, since
# the handler keeps the stream that there is.
keep_writing()

# Before Beam is imported: it warns, at import, of parts that nobody here uses.
_handler = logging.StreamHandler()
_handler.setFormatter(JsonFormatter() if is_wanted() else RedactingFormatter(logging.BASIC_FORMAT))
logging.basicConfig(handlers=[_handler], level=logging.ERROR)

with uncollected():
    import batchscore.drift.compare  # the last step's, which imports it late
    import batchscore.engines.local
    import batchscore.transforms  # noqa: F401

# A worker that looks through what it was forked with would copy all of it.
gc.freeze()
