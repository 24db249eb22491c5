"""Options that take a length of time, such as `26h`."""

from __future__ import annotations

import click


def read_seconds(_: click.Context, __: click.Parameter, given: str | None) -> int | None:
    """Returns the seconds of an option's value such as `26h`; None where it was not given.

    Raises:
        click.BadParameter: The value is no length of time.
    """
    if given is None:
        return None
    from batchscore.job.field_types import age_seconds, read_age

    try:
        return age_seconds(read_age(given))
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
