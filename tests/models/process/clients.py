"""A process that calls a model of another one; it imports no more than it needs."""

from __future__ import annotations

import socket
from multiprocessing.connection import Connection

import numpy as np

from batchscore.models.loadable import Model
from batchscore.models.process.host import Host
from batchscore.models.process.proxy import ProcessCalls
from batchscore.models.process.recipe import Recipe
from tests.backends.faulty import SAY_PID


def calls_of(host: Host, model: Model, key: str = "tests") -> ProcessCalls:
    """Returns the model as it is called with rows of any number and type."""
    return ProcessCalls(host, Recipe(key, model, "cpu", 1, False), None)


def call_often(shared: socket.socket, to: Connection, number: int, model: Model) -> None:
    """Calls a model with rows of its own until it is asked to report whether they came back."""
    calls = calls_of(Host("faulty", 60.0, shared), model, key="a run")
    to.send(int(calls.predict({"x": np.array([[SAY_PID]], np.float32)}, 1)()["score"][0]))
    right = True
    while not to.poll():
        sent = [np.full(1000, 10 * number + each) for each in range(4)]
        waiting = [calls.predict({"x": each}, 1000) for each in sent]
        right &= all((o()["x"] == s).all() for s, o in zip(sent, waiting, strict=True))
    to.send(right)
