"""Tests of messages between processes."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.models.process.memory import UnreadableError
from batchscore.models.process.wire import ANSWER, ASK, CALL, Message, receive, send

MESSAGES = st.builds(
    Message,
    kind=st.sampled_from([ASK, CALL, ANSWER]),
    sequence=st.integers(0, 2**64 - 1),
    body=st.binary(max_size=200),
    slot=st.integers(0, 2),
)


@given(st.lists(MESSAGES, max_size=8))
def test_messages_arrive_whole_and_in_order(sent: list[Message]) -> None:
    """A receiver gets what was sent, and then learns that there is no more."""
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            for each in sent:
                send(ours, each)
        assert [receive(theirs) for _ in sent] == sent
        assert receive(theirs) is None


def test_a_file_goes_with_a_message() -> None:
    """The receiver can read what the sender's file holds."""
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    with ours, theirs:
        send(ours, Message(ASK, 1, b"body", descriptors=(reading,)))
        os.write(writing, b"content")
        got = receive(theirs)
    assert got is not None
    (descriptor,) = got.descriptors
    assert os.read(descriptor, 7) == b"content"
    for each in (reading, writing, descriptor):
        os.close(each)


@given(st.binary(min_size=20, max_size=60))
def test_what_is_no_message_is_refused(junk: bytes) -> None:
    """Bytes of something else are not taken for a message, nor waited for."""
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(junk)
        with pytest.raises(UnreadableError):
            receive(theirs)


def test_a_message_that_is_cut_off_is_an_error() -> None:
    """The sender ended in the middle of it."""
    ours, theirs = socket.socketpair()
    whole, end = socket.socketpair()
    with whole, end:
        send(whole, Message(ANSWER, 1, b"a body"))
        packed = end.recv(1000)
    with theirs:
        with ours:
            ours.sendall(packed[:-2])
        with pytest.raises(ConnectionResetError):
            receive(theirs)
