"""Requests that go to who was asked, and to nobody else."""

from __future__ import annotations

import urllib.request
from typing import Any


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Reports an answer that names another address as an error."""

    def redirect_request(self, *_: Any) -> None:
        """Returns no request, so that the answer is an error, and no token is sent on."""


def strict_opener() -> urllib.request.OpenerDirector:
    """Returns what sends requests and follows no redirect."""
    return urllib.request.build_opener(NoRedirect)
