"""What an engine says to whoever listens: its orders, refusals and status on NATS. Nobody depends on it.

Subjects: `tandem.<engine>.orders`, `.signals` (of a simulation: what would have been orders), `.refusals`, `.status`.
"""

from typing import Any

from engine.kernel import codes
from engine.live.codec import SCHEMA, Names
from engine.live.messages import Rows, order_batch, refusal_batch
from engine.live.nats_bus import Bus, checked
from engine.live.wire import status_pb2


class Voice:
    """Speaks for one engine; never blocks, and what cannot be said in time is dropped and counted (`bus.counts`)."""

    def __init__(self, bus: Bus, names: Names, engine: str, account: str) -> None:
        self.bus, self.names, self.engine, self.account = bus, names, checked(engine, "engine"), account

    def orders(self, rows: Rows) -> None:
        """Orders that were decided on."""
        if len(rows):
            batch = order_batch(rows, self.names, engine=self.engine, account=self.account)
            self.bus.publish(f"tandem.{self.engine}.orders", batch.SerializeToString())

    def verdicts(self, rows: Rows) -> None:
        """Wishes that risk refused, and those that it let pass in a simulation."""
        passed = rows["reason"] == codes.OK
        for subject, part in (("signals", rows[passed]), ("refusals", rows[~passed])):
            if len(part):
                batch = refusal_batch(part, self.names, self.engine)
                self.bus.publish(f"tandem.{self.engine}.{subject}", batch.SerializeToString())

    def status(self, **fields: Any) -> None:
        """How the engine is: fields of EngineStatus."""
        said = status_pb2.EngineStatus(schema=SCHEMA, engine=self.engine, **fields)
        self.bus.publish(f"tandem.{self.engine}.status", said.SerializeToString())
