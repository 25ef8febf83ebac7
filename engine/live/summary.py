"""An engine in words and numbers, for people: what GET /status answers and `tandem mode=status` shows."""

import time
from datetime import UTC, datetime
from typing import Any

import numpy as np

from engine.kernel import codes
from engine.live.observe import Watched


class Summary:
    """Says what an engine does; rates are those since the look before, a second ago or longer. Times in µs."""

    def __init__(self, engine: Watched, name: str) -> None:
        self.engine, self.name = engine, name
        self._before = (time.monotonic(), self._counts())
        self._rates = dict.fromkeys(self._before[1], 0.0)

    def _counts(self) -> dict[str, int]:
        stats = self.engine.stats
        return {"events": stats.events, "orders": stats.orders, "fills": stats.fills}

    def _rate(self) -> dict[str, float]:
        (since, before), now, counts = self._before, time.monotonic(), self._counts()
        if now - since >= 1.0:
            self._rates = {key: (count - before[key]) / (now - since) for key, count in counts.items()}
            self._before = (now, counts)
        return self._rates

    def __call__(self) -> dict[str, Any]:
        """All of it, as plain values."""
        e, stats, session = self.engine, self.engine.stats, self.engine.session
        k, journal = session.machine.kernel, session.journal
        place = journal.place if journal else None
        return {
            "time": datetime.now(UTC).isoformat(timespec="seconds"), "engine": self.name,
            "trading": codes.NAMES["trading"][k.trading], "killed": bool(k.killed),
            "halted": codes.NAMES["halt"].get(k.halt, "") if k.halt else "", "readiness": e.readiness(),
            "equity": k.cash + k.value, "cash": k.cash, "pnl_today": k.cash + k.value - k.day_equity,
            "positions": self._positions(), "rates": self._rate(), "in_doubt": e.venue.in_doubt,
            "refusals": list(stats.last_refusals), "strategies": self._strategies(),
            "gaps": e.feed.counts["gaps"], "reconnects": e.feed.counts["reconnects"] + e.bus.counts["reconnects"],
            "latency": {f"p{n}_us": stats.latency.quantile(n / 100) / 1e3 for n in (50, 99)},
            "journal": {"folder": str(journal.folder) if journal else "", "events": place.events if place else 0,
                        "orders": place.orders if place else 0},
        }  # fmt: skip

    def _positions(self) -> list[dict[str, Any]]:
        """What all strategies hold together, by instrument; the average is that of their averages."""
        machine, names = self.engine.session.machine, self.engine.names.names
        held = machine.table("positions_at").copy().reshape(-1, len(names))
        rows, marks = machine.table("instruments_at"), machine.table("markets_at")["mark"].copy()
        found = []
        for i in np.flatnonzero((held["fills"].sum(axis=0) > 0) | (held["qty"] != 0).any(axis=0)).tolist():
            p, lots = held[:, i], int(held["qty"][:, i].sum())
            cost = float((p["qty"] * p["average"]).sum())
            pnl = float((p["realised"] - p["fees"]).sum()) + float(rows["unit"][i]) * (lots * float(marks[i]) - cost)
            found.append({"instrument": names[i], "qty": lots * float(rows["lot"][i]),
                          "average": cost / lots if lots else None, "mark": float(marks[i]), "pnl": pnl})  # fmt: skip
        return found

    def _strategies(self) -> list[dict[str, Any]]:
        session, plan = self.engine.session, self.engine.plan
        slots, found = session.machine.table("slots_at").copy(), []
        for n, (name, placed) in enumerate(zip(plan.names, session.machine.placed, strict=True)):
            fresh = session.reloads.get(n, {})
            fault = int(slots["fault"][n])
            params = {**placed.strategy.values, **fresh.get("params", {})}
            found.append({"name": fresh.get("name", name), "params": params,
                          "active": bool(slots["active"][n]),
                          "fault": codes.NAMES["fault"].get(fault, str(fault)) if fault else ""})  # fmt: skip
        return found
