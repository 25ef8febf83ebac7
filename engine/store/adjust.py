"""Corporate actions: applied to the prices before them, or worked out from what a vendor adjusted.

A split of `ratio` new shares for one old divides earlier prices by `ratio` and multiplies earlier volumes.
A dividend of `amount` scales earlier prices by `1 - amount / C`, C the last close before the ex-date (the method of
CRSP and Yahoo, base "previous"), or by `C / (C + amount)`, C the close of the ex-date (Quandl WIKI, base "ex").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from engine.errors import DataError

Floats = np.ndarray[Any, np.dtype[np.float64]]
SPLIT_MIN = 0.08  # a step in the factor below this is taken for a dividend
NOISE = 2e-6  # relative steps of the factor that rounding of the adjusted close explains


@dataclass(frozen=True)
class Action:
    """One corporate action, in force from the first bar that closes after `ts` (ns UTC, the open of the ex-date)."""

    ts: int
    kind: str  # "split" or "dividend"
    ratio: float = 1.0
    amount: float = 0.0

    def __post_init__(self) -> None:
        good = (self.ratio if self.kind == "split" else self.amount) > 0 and self.kind in ("split", "dividend")
        if not (good and np.isfinite(self.ratio) and np.isfinite(self.amount)):
            raise DataError(f"{self}: kind must be split (ratio above 0) or dividend (amount above 0).")


def factors(ts: "np.ndarray[Any, np.dtype[np.int64]]", close: Floats, actions: Sequence[Action],
            base: str = "previous") -> tuple[Floats, Floats]:  # fmt: skip
    """Factors for the prices and for the volumes of bars with raw `close` at sorted `ts`.

    Actions of one moment: the split first, then the dividend in new shares. Actions before the first bar or
    after the last change nothing (the last bar keeps its raw price).
    """
    price, volume = np.ones(len(ts)), np.ones(len(ts))
    split_then: dict[int, float] = {}
    for action in sorted(actions, key=lambda a: (a.ts, a.kind != "split")):
        at = int(np.searchsorted(ts, action.ts, side="right"))
        if at == 0 or at == len(ts):
            continue
        if action.kind == "split":
            price[:at] /= action.ratio
            volume[:at] *= action.ratio
            split_then[action.ts] = split_then.get(action.ts, 1.0) * action.ratio
        else:
            before = close[at - 1] / split_then.get(action.ts, 1.0)
            scale = 1 - action.amount / before if base == "previous" else close[at] / (close[at] + action.amount)
            if not scale > 0:
                raise DataError(f"dividend of {action.amount} is not less than the close before it ({before}); "
                                "check the amount and its currency.")  # fmt: skip
            price[:at] *= scale
    return price, volume


def infer_actions(opens: "np.ndarray[Any, np.dtype[np.int64]]", close: Floats, adjusted: Floats,
                  base: str = "previous") -> list[Action]:  # fmt: skip
    """Corporate actions from the steps of `adjusted / close`; bar i opens at `opens[i]`.

    A step up by k at bar i is a split if k is near a ratio of small whole numbers and the raw close fell by about as
    much; otherwise a dividend, whose amount follows from `base`. Steps that rounding of the adjusted close (to its
    own decimals) explains are left out. One bar with both is taken for its split alone.
    """
    factor = adjusted / close
    step = factor[1:] / factor[:-1]
    found = []
    for i in np.flatnonzero(np.abs(step - 1) > NOISE) + 1:
        k = float(step[i - 1])
        ratio = _split_ratio(k, float(close[i] / close[i - 1]))
        if ratio is not None:
            found.append(Action(int(opens[i]), "split", ratio=ratio))
        elif k > 1:
            amount = close[i - 1] * (1 - 1 / k) if base == "previous" else close[i] * (k - 1)
            found.append(Action(int(opens[i]), "dividend", amount=round(float(amount), 4)))
        else:
            raise DataError(f"the adjusted close steps down by {1 - k:.2%} at bar {i + 1}, which neither a split nor a "
                            "dividend does; give the actions themselves.")  # fmt: skip
    return found


def _split_ratio(k: float, move: float) -> float | None:
    """The split that explains a factor step `k` beside a raw price `move`, if one does."""
    if abs(k - 1) < SPLIT_MIN:
        return None
    for old in (1, 2, 3, 4, 5, 10, 20, 25, 50, 100):
        new = round(k * old)
        # The price must move with the split: up to a third of other news on the day.
        if new >= 1 and abs(new / old / k - 1) < 1e-4 and 2 / 3 < move * k < 3 / 2:
            return new / old
    return None


def lean_actions(rows: Sequence[tuple[int, float, float, float]], instrument: str) -> list[dict[str, Any]]:
    """Actions for `import_bars` from a factor file of QuantConnect's Lean.

    Rows are (day YYYYMMDD, price factor, split factor, reference close); a row holds up to and including its day, so
    the next session is the ex-date. Dividends are in money per unit as traded on the eve.
    """
    found: list[dict[str, Any]] = []
    for (day, price, split, reference), (_, next_price, next_split, _) in pairwise(sorted(rows)):
        eve = date(day // 10_000, day // 100 % 100, day % 100)
        row = {"instrument": instrument, "ts": eve + timedelta(days=1)}
        if abs(next_split / split - 1) > NOISE:
            ratio = next_split / split
            whole = round(ratio)
            found.append({**row, "kind": "split", "ratio": whole if whole and abs(ratio / whole - 1) < 1e-3 else ratio})
        if abs(next_price / price - 1) > NOISE and reference > 0:
            found.append({**row, "kind": "dividend", "amount": reference * (1 - price / next_price)})
    return found
