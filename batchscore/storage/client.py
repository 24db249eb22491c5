"""What a module for a kind of remote store offers, whether its puts know a condition or not."""

from __future__ import annotations

from typing import Any, Protocol


class Client(Protocol):
    """A module for a kind of store: `s3`, `gcs`, or `unconditional` for all others.

    Its functions take the filesystem that `connect` returned, and paths within it. An object's tag
    changes with each put. `mark`, the caller's own, is kept with an object: when the answer to a
    put is lost, and the put repeated, it tells the caller's object from another's.
    """

    CONDITIONAL: bool
    """Whether of many who put a new object, or replace one, exactly one succeeds."""

    def connect(self, address: str, once: bool) -> tuple[Any, str]:
        """Returns the filesystem of an address and the path within it.

        That of an object store keeps no listings.

        Args:
            address: As a user types it.
            once: Whether each request is tried once, for a caller that tries again by itself.
        """

    def tag(self, info: dict[str, Any]) -> str | None:
        """Returns the tag of an object that was listed; None if the store has none."""

    def read(
        self, filesystem: Any, path: str, start: int | None = None, end: int | None = None
    ) -> bytes:
        """Returns an object's bytes, of one version, or those between two places.

        Raises:
            FileNotFoundError: It is not there.
        """

    def age(self, filesystem: Any, path: str) -> float | None:
        """Returns the seconds since an object was put, by the clock of the answer that says so.

        None where the store does not date its answers.

        Raises:
            FileNotFoundError: It is not there.
        """

    def put_new(self, filesystem: Any, path: str, data: bytes, mark: str) -> bool:
        """Puts an object where there is none; False if there is one."""

    def put_matching(self, filesystem: Any, path: str, old: bytes, new: bytes, mark: str) -> bool:
        """Replaces an object that still holds `old`; else False."""

    def copy(self, filesystem: Any, source: str, target: str, tag: str | None) -> None:
        """Copies an object, of no other version than that of a tag; OSError if it has another."""

    def abort_uploads(self, filesystem: Any, folder: str) -> None:
        """Removes what uploads in parts that were not ended left below a folder."""
