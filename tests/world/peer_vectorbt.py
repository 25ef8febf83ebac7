"""vectorbt's side of the comparison: `python peer_vectorbt.py JOB.json OUT.json`, in its own environment.

Nothing of Tandem is imported here. Averages and smoothing are vectorbt's own; signals are shifted by one bar and
filled at the open. One account and fixed sizes: `from_signals` with the modes that trade one size in each direction.
"""

import json
import sys

import numpy as np
import pandas as pd
import vectorbt as vbt


def later(signals: pd.Series) -> pd.Series:
    """What is known at a close acts at the next open."""
    return signals.shift(1, fill_value=False).astype(bool)


def cross(case: dict, close: pd.Series) -> tuple:
    """Long above, else out or short: where the slow average exists."""
    fast, slow = (vbt.MA.run(close, case[name]).ma for name in ("fast", "slow"))
    level = slow * (1 + case["band"])
    above, below = (fast > level) & slow.notna(), ~(fast > level) & slow.notna()
    never = pd.Series(False, close.index)
    signals = (above, never, below, never) if case["short"] else (above, below, never, never)
    return signals, float((fast / level - 1).abs().min())


def rsi(case: dict, close: pd.Series) -> tuple:
    """Wilder's index through vectorbt's exponential mean (span 2n-1 is alpha 1/n), seeded by the first plain mean."""
    n = case["length"]
    change = close.diff()
    means = []
    for side in (change.clip(lower=0), -change.clip(upper=0)):
        seeded = side.copy()
        seeded.iloc[n] = side.iloc[1 : n + 1].mean()
        tail = seeded.iloc[n:].vbt.ewm_mean(span=2 * n - 1, minp=1, adjust=False)
        means.append(tail.reindex(close.index))
    index = 100 - 100 / (1 + means[0] / means[1])
    low, leave, high = case["low"], case["leave"], case["high"]
    up = index > high
    never = pd.Series(False, close.index)
    if case["short"]:
        signals = (index < low, (index > leave) & ~up, up, (index < leave) & ~(index < low))
    else:
        signals = (index < low, index > leave, never, never)
    return signals, min(float((index - level).abs().min()) for level in (low, leave, high))


def run(case: dict, bars: dict) -> dict:
    """One case: fills as [bar, signed units, price], final equity, distance of the nearest decision."""
    index = pd.DatetimeIndex(bars["opened"].astype("datetime64[ns]"))
    close, opened = (pd.Series(np.asarray(bars[p]), index) for p in ("close", "open"))
    signals, nearest = (cross if case["rule"] == "cross" else rsi)(case, close)
    done = vbt.Portfolio.from_signals(
        close, *map(later, signals), price=opened, size=case["lots"] * case["lot"], size_type="amount",
        fees=case["fee"], init_cash=case["cash"], upon_opposite_entry="Reverse", allow_partial=False,
    )  # fmt: skip
    rows = done.orders.records
    sizes = np.where(rows["side"] == 0, rows["size"], -rows["size"])
    fills = [[int(i), float(q), float(p)] for i, q, p in zip(rows["idx"], sizes, rows["price"], strict=True)]
    return {"fills": fills, "equity": float(done.final_value()), "nearest": nearest}


def main(job: str, out: str) -> None:
    """Run all cases of a job."""
    with open(job) as file:
        told = json.load(file)
    bars = {name: dict(np.load(path)) for name, path in told["bars"].items()}
    found = {case["id"]: run(case, bars[case["bars"]]) for case in told["cases"]}
    with open(out, "w") as file:
        json.dump({"version": vbt.__version__, "cases": found}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
