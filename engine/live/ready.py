"""Whether an engine's orders would leave now, and if not, why: what /readyz answers."""

import logging
from typing import Any

from engine.kernel.records import slots

LOG = logging.getLogger("tandem.live")
STALL_S = 5.0  # a loop that has not turned, and a disk that has not answered, for so long is not healthy


def why_not(engine: Any) -> list[str]:
    """Why no order would be sent now, or none should; empty when all is well."""
    e, k, reports = engine, engine.session.machine.kernel, engine.reports
    checks = [
        (not e.session.halted, "the kernel has halted"),
        (e.lease.valid, "the lease is not held"),
        (e.feed.connected, "Redis is not connected"),
        (e.feed.counts["events"] > 0, "no market data has come yet"),
        (not (silent := e.feed.inbox.silent), f"market data are silent: {', '.join(silent[:5])}"),
        (e.bus.connected, "NATS is not connected"),
        (e.venue.connected, "the execution service is not connected"),
        (not e.venue.fenced, "the execution service listens to a newer engine"),
        (e.reconciled, "orders and positions are not reconciled yet"),
        (reports is None or not reports.behind, "the venue has lost reports that we have"),
        (reports is None or not reports.missing, "reports are missing, and the venue does not give them"),
        (not e.differs, f"the venue holds other positions than we do: {e.differs}"),
        (e.departure.slow_s < STALL_S, "the disk does not answer"),
        (not k.killed, "the kill switch is on"),
        (any(slots(k, s).active for s in range(k.strategies)), "no strategy runs"),
    ]
    return [why for good, why in checks if not good]


def compare(engine: Any) -> None:
    """Hold the positions that the venue said last against ours, when both are as of one report; `engine.differs`.

    Not where we only observe: the orders of others are none that we know.
    """
    e, reports = engine, engine.reports
    machine = e.session.machine
    if reports is None or not e.lease.whole or reports.positions_exec != machine.kernel.last_exec:
        return
    pairs = [(reports.positions.get(i, (0, 0.0))[0], lots, e.names.names[i])
             for i, lots in enumerate(machine.table("markets_at")["net"].tolist())]  # fmt: skip
    said, before = ", ".join(f"{name} {there} (ours {here})" for there, here, name in pairs if there != here), e.differs
    e.differs = said
    if said and not before:
        LOG.error("the venue holds other positions than we do, as of report %d: %s; stop and reconcile",
                  reports.positions_exec, said)  # fmt: skip
