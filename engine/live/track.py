"""A live session as an MLflow run, tagged kind=live, beside the backtests of the same strategies.

Law 1: never on the hot path: what is logged is taken as plain values when the session has ended.
Law 2: an outage of the tracker costs a warning and nothing else.
"""

import logging
from typing import Any

import numpy as np

from engine import tracking
from engine import tracking_names as names
from engine.config import Tracking
from engine.errors import TrackingError
from engine.kernel import codes
from engine.live.summary import Summary
from engine.tracking_models import Models, Version, compare_link

LOG = logging.getLogger("tandem.live")


def request(engine: Any, name: str, settings: Tracking) -> dict[str, Any]:
    """What `engine.tracking.track` is told about a session: plain values only.

    Metrics have the names that backtests have where they mean the same.
    """
    stats, session, plan = engine.stats, engine.session, engine.plan
    k, curve = session.machine.kernel, np.array(list(stats.curve), np.float64).reshape(-1, 2)
    ts, equity = np.array([int(t) for t, _ in stats.curve], np.int64), curve[:, 1]
    start, end = float(k.start_equity), float(k.cash + k.value)
    fall = equity / np.maximum(np.maximum.accumulate(equity), start) - 1.0 if len(equity) else np.zeros(1)
    strategies = Summary(engine, name)()["strategies"]
    many = len(strategies) > 1
    params: dict[str, Any] = {"strategy": ", ".join(str(one["name"]).rpartition(":")[2] for one in strategies)}
    for n, one in enumerate(strategies):
        params |= {f"{n}.{key}" if many else key: value for key, value in one["params"].items()}
    params |= {f"risk.{key}": value for key, value in plan.limits.items()} | {"cash": plan.cash}
    refusals = {f"refused_{codes.NAMES['reason'][n]}": float(count) for n, count in enumerate(stats.refusals.tolist())
                if count and n in codes.NAMES["reason"]}  # fmt: skip
    metrics = {
        "start_equity": start, "end_equity": end, "total_return": end / start - 1.0, "max_drawdown": float(fall.min()),
        "fees": float(k.fees), "realised": float(k.realised), "events": float(stats.events),
        "orders": float(stats.orders), "fills": float(stats.fills), "refused": float(stats.refusals.sum()),
        "gaps": float(engine.feed.counts["gaps"]), "missed_events": float(engine.feed.counts["missed"]),
        "latency_p50_us": stats.latency.quantile(0.5) / 1e3,
        "latency_p99_us": stats.latency.quantile(0.99) / 1e3, **refusals,
    }  # fmt: skip
    journal, header = session.journal, session.journal.header if session.journal else {}
    tags = {"kind": "live", "engine": name, "session": str(k.session), "kernel": str(header.get("kernel", ""))[:12],
            "journal": str(journal.folder) if journal else ""}  # fmt: skip
    digest = f"{journal.place.chain:08x}" if journal else ""
    return {
        "experiment": settings.experiment, "name": f"{name} live", "tracking_uri": settings.uri, "params": params,
        "metrics": metrics, "curve": (ts, equity), "start_equity": start, "dataset": (name, digest or "none"),
        "tags": tags, "context": "live", "note": f"Live session of {name}: {params['strategy']}.",
    }  # fmt: skip


def log(told: dict[str, Any], promoted: Version | None = None) -> tracking.TrackedRun | None:
    """Log what `request` gave, linked with the run of the model that was traded; None, and a warning, when the tracker
    refuses or does not answer."""
    try:
        made = tracking.track(**told)
        if promoted is not None:
            link(made.run_id, promoted, told["tracking_uri"])
        return made
    except TrackingError as error:
        LOG.warning("the session is not tracked: %s", error)
        return None


def link(session: str, promoted: Version, uri: str | None) -> None:
    """Let a session, the run that it trades, and that run's sweep point at each other. Raises TrackingError."""
    models = Models(uri)
    mine, tested = models.run(session), models.run(promoted.run_id)
    sweep = models.sweep_of(tested)
    every = [mine, tested, *([sweep] if sweep else [])]
    tags = {names.MODEL: str(promoted), names.PROMOTED_RUN: tested.run_id}
    tags |= {names.SWEEP_RUN: sweep.run_id} if sweep else {}
    origin = f", a lane of {sweep.link}" if sweep else ""
    models.tag(mine, tags, f"Traded {promoted.link}, promoted from {tested.link}{origin}: {compare_link(every)}.")
    for run in every[1:]:
        models.tag(run, {}, f"Traded live as {promoted.link}: {mine.link}, {compare_link(every)}.")
