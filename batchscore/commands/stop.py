"""How a signal asks a run to stop; light enough for a command to import before all else."""


class Stop:
    """Set by a signal handler, and followed by a run: the signal's number, or None."""

    signal: int | None = None
