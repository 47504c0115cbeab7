"""How tables travel between the workers of Beam: as Arrow IPC, never as Python rows.

An element of a PCollection is a whole RecordBatch.
"""

import pyarrow as pa
from apache_beam import coders


class BatchCoder(coders.Coder):
    """A RecordBatch as an Arrow IPC stream of one batch."""

    def encode(self, value: pa.RecordBatch) -> bytes:
        """The schema and the buffers; of a slice only its own rows."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_batch(value)
        encoded: bytes = sink.getvalue().to_pybytes()
        return encoded

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        """The batch; its columns lie in the bytes that came."""
        with pa.ipc.open_stream(pa.py_buffer(encoded)) as reader:
            return reader.read_next_batch()

    def estimate_size(self, value: pa.RecordBatch) -> int:
        """About what it takes encoded: Beam asks for it at every step, and would encode it to know."""
        return int(value.nbytes)

    def is_deterministic(self) -> bool:
        """A batch is no key."""
        return False

    def to_type_hint(self) -> type[pa.RecordBatch]:
        """What it encodes."""
        return pa.RecordBatch
