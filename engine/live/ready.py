"""Whether an engine's orders would leave now, and if not, why: what /readyz answers."""

from typing import Any

from engine.kernel.records import slots

STALL_S = 5.0  # a loop that has not turned, and a disk that has not answered, for so long is not healthy


def why_not(engine: Any) -> list[str]:
    """Why no order would be sent now, or none should; empty when all is well."""
    e, k, reports = engine, engine.session.machine.kernel, engine.reports
    checks = [
        (not e.session.halted, "the kernel has halted"),
        (e.lease.valid, "the lease is not held"),
        (e.feed.connected, "Redis is not connected"),
        (e.bus.connected, "NATS is not connected"),
        (e.venue.connected, "the execution service is not connected"),
        (not e.venue.fenced, "the execution service listens to a newer engine"),
        (e.reconciled, "orders and positions are not reconciled yet"),
        (reports is None or not reports.behind, "the venue has lost reports that we have"),
        (reports is None or not reports.missing, "reports are missing, and the venue does not give them"),
        (e.departure.slow_s < STALL_S, "the disk does not answer"),
        (not k.killed, "the kill switch is on"),
        (any(slots(k, s).active for s in range(k.strategies)), "no strategy runs"),
    ]
    return [why for good, why in checks if not good]
