"""Record batches between steps of a pipeline: Arrow IPC, of a slice its own rows only."""

from __future__ import annotations

import pyarrow as pa
from apache_beam.coders.coders import Coder, FastPrimitivesCoder
from apache_beam.coders.typecoders import registry


class RecordBatchCoder(Coder):
    """Writes a batch as one Arrow IPC stream.

    Beam would pickle it, and a pickled slice holds all of the batch that it was cut from.
    """

    def encode(self, value: pa.RecordBatch) -> bytes:
        """Packs a batch."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_batch(value)
        return bytes(sink.getvalue())

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        """Unpacks a batch."""
        with pa.ipc.open_stream(pa.py_buffer(encoded)) as reader:
            return reader.read_next_batch()

    def estimate_size(self, value: pa.RecordBatch) -> int:
        """Bytes of the batch, without packing it."""
        return int(value.nbytes)

    def to_type_hint(self) -> type[pa.RecordBatch]:
        """Returns what it encodes; without, a pipeline could not be read from its own graph."""
        return pa.RecordBatch

    def is_deterministic(self) -> bool:
        """Batches are never keys."""
        return False


def register() -> None:
    """Gives record batches this coder, unless the program registered one of its own."""
    if isinstance(registry.get_coder(pa.RecordBatch), FastPrimitivesCoder):
        registry.register_coder(pa.RecordBatch, RecordBatchCoder)
