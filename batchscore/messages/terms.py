"""What messages about input data call the things by which a user chooses that data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """The user's names for the choice of data; a job's keys by default.

    Args:
        data: Name of the addresses of the data.
        columns: Name of the choice of columns.
    """

    data: str = "input.path"
    columns: str = "output.columns"

    @property
    def write_again(self) -> str:
        """What helps with a shard that cannot be read."""
        return f"write it again or take it out of {self.data}"


JOB = Terms()


@dataclass(frozen=True)
class DataAddress:
    """An address of data, which messages show after the user's name for it.

    Args:
        text: The address.
        terms: The user's names.
    """

    text: str
    terms: Terms = JOB

    def __str__(self) -> str:
        return f"{self.terms.data} {self.text}"
