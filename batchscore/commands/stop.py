"""How a signal asks a run to stop; light enough for a command to import before all else."""


class Stop:
    """Set by a signal handler, or by a request in the output, and followed by a run.

    Attributes:
        signal: The signal's number, or None.
        by: Who cancelled the run from elsewhere, as `user@host`; empty for a signal.
        may_leave: Whether the run goes on without its launcher, so that a signal may ask.
        leave: Whether the launcher is to leave the run, which goes on, once its engine has it.
        is_waiting: Whether no run was started yet.
    """

    signal: int | None = None
    by: str = ""
    may_leave: bool = False
    leave: bool = False
    is_waiting: bool = False
