"""How well a run on quotes and trades was executed: what each fill won against the market, and what became of it.

Every figure starts from the mark (middle of the quote) that the fill met: just before it for who rested, as its cause
may have moved the quote; at it for who took. s is 1 for a buy, -1 for a sale, and a later mark is the venue's.

    spread     s * (mark - price)          effective half spread, won (maker) or paid (taker)
    mark-out   s * (mark after h - price)  realised half spread: what is left of it after h seconds
    adverse    spread - mark-out           adverse selection: how far the market moved against us
Source: Huang and Stoll 1996, "Dealer versus auction markets", Journal of Financial Economics 41.

    profit = spread * qty of all fills + position * change of the mark + funding and dividends - fees
Source: Menkveld 2013, "High frequency trading and the new market makers", Journal of Financial Markets 16, who parts
a maker's profit into spread and positions; Hasbrouck and Sofianos 1993, "The trades of market makers".

Law 1: the parts of the profit add up to the change of equity, but for rounding.
Law 2: a fill whose mark-out lies beyond the end of the tape has none; nothing is filled in.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backtest.history import rows_of
from backtest.look import KERNEL, VENUE, look, questions
from backtest.metrics import NAN, Floats, Ints, ratio
from backtest.trades import Actions, Fills, moments, split_factors, whole_lots
from engine.kernel import codes

if TYPE_CHECKING:
    from backtest.result import Result

SECOND = 1_000_000_000
HORIZONS = (1.0, 5.0, 30.0)  # seconds, of the figures
CURVE = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)  # of the chart
SAMPLE = 20_000  # fills of the chart
BATCH = 1 << 20  # moments asked about in one pass


class Executions(NamedTuple):
    """One row for each fill: `mark` it met, `spread` in price, `ahead` in units and `rested` in s of who rested (else
    nan), `markouts` in price, one row for each of HORIZONS."""

    maker: NDArray[np.bool_]
    mark: Floats
    spread: Floats
    ahead: Floats
    rested: Floats
    markouts: Floats


class Profit(NamedTuple):
    """Parts of the change of equity, account currency: `total` = spread + inventory + carry - fees."""

    spread: float
    inventory: float
    carry: float
    fees: float
    total: float


def marks_of(result: "Result", asked: list[Any]) -> list[Any]:
    """Answers to several lots of questions on the venue's clock, in as few passes as memory allows."""
    ticks, events = result.tick, result.tape.events
    if sum(map(len, asked)) > BATCH:
        return [look(events, ticks, one, clock=VENUE).moments for one in asked]
    found = look(events, ticks, np.concatenate(asked), clock=VENUE).moments
    return np.split(found, np.cumsum([len(one) for one in asked])[:-1])


def joins(orders: Any, reports: Any) -> tuple[Ints, Floats, NDArray[np.bool_]]:
    """For each fill: when its order joined the queue it was filled from (ts at the venue), at what price, and whether
    it is a limit order. A replace joins anew, but with no more lots at the same price it keeps its place."""
    new = orders[orders["action"] == codes.NEW]
    new = new[np.argsort(new["id"], kind="stable")]
    code, at = reports["code"], np.arange(len(reports))
    known = np.isin(code, (codes.ACK, codes.REPLACED)) & np.isin(reports["order_id"], new["id"])
    rank = np.searchsorted(new["id"], reports["order_id"])
    rows = np.flatnonzero(known)
    rows = rows[np.lexsort((rows, rank[rows]))]
    own, ack = rank[rows], code[rows] == codes.ACK
    price = np.where(ack, new["price"][own], reports["price"][rows])
    lots = np.where(ack, new["qty"][own], np.abs(reports["qty"][rows]))
    kept = np.zeros(len(rows), bool)
    kept[1:] = (own[1:] == own[:-1]) & (price[1:] == price[:-1]) & (lots[1:] <= lots[:-1])
    rows, own, price = rows[~kept], own[~kept], price[~kept]
    fills = np.flatnonzero(code == codes.FILL)
    if not len(fills):
        return np.empty(0, "i8"), np.empty(0), np.empty(0, bool)
    place = np.searchsorted(own * len(at) + rows, rank[fills] * len(at) + fills) - 1
    place = np.maximum(place, 0)  # a fill without an acknowledgement: none of ours, but a tape may be cut
    kind = new["type"][np.minimum(rank[fills], len(new) - 1)]
    resting = (kind == codes.LIMIT) | (
        (kind == codes.STOP_LIMIT) & (np.abs(price[place] - reports["price"][fills]) <= 1e-9 * np.abs(price[place]))
    )
    return reports["ts"][rows][place].astype("i8"), price[place], resting


def executions(result: "Result") -> Executions:
    """What each fill met and won."""
    fills = result.fill_columns
    side, n = np.sign(fills.lots), len(fills.ts)
    joined, price, resting = fills.ts.copy(), fills.price.copy(), np.zeros(n, bool)
    sent = fills.order_id > 0  # the others met no venue
    joined[sent], price[sent], resting[sent] = joins(result.raw["orders"], result.raw["reports"])
    maker = resting & (fills.ts > joined)
    end = int(result.tape.events["ts"].max()) if n else 0
    later = [questions(fills.ts + round(h * SECOND), fills.instrument) for h in HORIZONS]
    found = marks_of(result, [questions(fills.ts - maker, fills.instrument), questions(fills.ts, fills.instrument),
                              questions(joined, fills.instrument, side, price), *later])  # fmt: skip
    mark = np.where(np.isnan(found[0]["mark"]), found[1]["mark"], found[0]["mark"])
    mark = np.where(np.isnan(mark), fills.price, mark)  # no quote yet, and the first trade is ours
    after = np.array([np.where(q["ts"] <= end, one["mark"], NAN) for q, one in zip(later, found[3:], strict=True)])
    return Executions(maker, mark, side * (mark - fills.price), np.where(maker, found[2]["ahead"], NAN),
                      np.where(maker, (fills.ts - joined) / SECOND, NAN),
                      side * (after.reshape(len(HORIZONS), n) - fills.price))  # fmt: skip


def payments(result: "Result", fills: Fills) -> tuple[Ints, Floats]:
    """Funding and dividends that the account got, and when, on the position it knew of at the time."""
    events, actions, shift = result.tape.events, result.history.actions, result.feed_ns
    rows = rows_of(events, codes.FUNDING, codes.DIVIDEND)
    rows = rows[events["recv"][rows] + shift <= (result.curve[0][-1] if len(result.curve[0]) else 0)]
    when, index, amount = events["recv"][rows] + shift, events["instrument"][rows].astype("i8"), events["amount"][rows]
    if not len(rows):
        return when, amount
    fills = whole_lots(fills, actions)
    known = moments(fills, actions)
    mark = look(events, result.tick, questions(when, index), clock=KERNEL, shift=shift).moments["mark"]
    funding, paid = events["kind"][rows] == codes.FUNDING, np.zeros(len(rows))
    each = np.where(funding, -amount * mark * result.multiplier[index], amount) * result.lot[index]
    for i in np.unique(index):
        mine, own = fills.instrument == i, index == i
        factor, now = (split_factors(t, actions, actions.instrument == i) for t in (known[mine], when[own]))
        held = np.append(0.0, np.cumsum(fills.lots[mine] * factor))[np.searchsorted(fills.ts[mine], when[own], "right")]
        paid[own] = held / now * each[own]
    return when, paid


def known_fills(result: "Result") -> tuple[Fills, NDArray[np.bool_]]:
    """The fills that the account had heard of at the end, at the time when it did; and which of all they are."""
    reports, fills = result.raw["reports"], result.fill_columns
    heard = fills.ts.copy()  # of a cross inside the account at once
    heard[fills.order_id > 0] = reports["recv"][reports["code"] == codes.FILL]
    mask = heard <= (int(result.curve[0][-1]) if len(result.curve[0]) else 0)
    columns: Any = fills._replace(ts=np.maximum(heard, fills.ts))
    return Fills(*(column[mask] for column in columns)), mask


def profit(result: "Result") -> Profit:
    """The change of equity by its causes."""
    heard, mask = known_fills(result)
    actions: Actions = result.history.actions
    worth, last = result.lot * result.multiplier, result.history.last
    mark = result.executions.mark[mask]
    spread = float((heard.lots * (mark - heard.price) * worth[heard.instrument]).sum())
    # A fraction of a lot that a split paid out in cash is a fill at the mark.
    whole = whole_lots(heard, actions)
    met = np.concatenate((whole.price[whole.order_id == 0], mark))
    when, factor = moments(whole, actions), np.ones(len(whole.ts))
    order = np.argsort(np.concatenate((whole.ts[whole.order_id == 0], moments(heard, actions))), kind="stable")
    for i in np.unique(actions.instrument):
        mine = whole.instrument == i
        factor[mine] = split_factors(when[mine], actions, actions.instrument == i)
    moved = factor * last[whole.instrument] - met[order]
    inventory = float((whole.lots * moved * worth[whole.instrument]).sum())
    end = float(result.curve[1][-1]) if len(result.curve[1]) else result.start_equity
    carry = float(payments(result, heard)[1].sum())
    return Profit(spread, inventory, carry, float(heard.fee.sum()), end - result.start_equity)


def profit_lines(result: "Result", rows: Ints) -> dict[str, Floats]:
    """The parts of the profit up to each of these rows of the curve; inventory is what the others leave of equity."""
    heard, mask = known_fills(result)
    worth = (result.lot * result.multiplier)[heard.instrument]
    at, equity = result.curve[0][rows], result.curve[1]

    def running(when: Ints, amounts: Floats) -> Floats:
        total: Floats = np.append(0.0, np.cumsum(amounts))[np.searchsorted(when, at, "right")]
        return total

    spread = running(heard.ts, heard.lots * (result.executions.mark[mask] - heard.price) * worth)
    fees, carry = running(heard.ts, heard.fee), running(*payments(result, heard))
    net = equity[rows] - result.start_equity
    return {"net": net, "spread": spread, "inventory": net - spread - carry + fees, "carry": carry, "fees": -fees}


def bps(won: Floats, price: Floats, size: Floats) -> float:
    """Mean of `won` (in price) over the price, weighted by the traded value, in basis points; nan is left out.

    >>> round(bps(np.array([0.01, np.nan, -0.02]), np.array([100.0, 100.0, 50.0]), np.array([3.0, 1.0, 1.0])), 4)
    0.2857
    """
    known = np.isfinite(won)
    return 1e4 * ratio(float((won * size)[known].sum()), float((price * size)[known].sum()))


def time_mean(ts: Ints, values: Floats) -> float:
    """Mean over time of a value that holds from each time to the next.

    >>> time_mean(np.array([0, 1, 4]), np.array([2.0, 6.0, 9.0]))
    5.0
    """
    return ratio(float((values[:-1] * np.diff(ts)).sum()), float(ts[-1] - ts[0])) if len(ts) > 1 else NAN


def quality_metrics(result: "Result") -> dict[str, float]:
    """The figures that only a run on quotes and trades has.

    `fill_ratio`: lots filled over lots asked for, each order at the most it asked for. `quote_trade_ratio`:
    instructions sent (new, replace, cancel) for each fill; less one it is the order-to-trade ratio of the Commission
    Delegated Regulation (EU) 2017/566. `queue_ahead`: volume that stood before an order when it joined the queue it was
    filled from, `queue_seconds` how long it stood there, medians over the fills of resting orders.
    `average_inventory`, `max_inventory`: worth of what was held, long or short, the mean over time.
    """
    fills, done, parts, orders = result.fill_columns, result.executions, result.profit, result.raw["orders"]
    size = np.abs(fills.lots) * (result.lot * result.multiplier)[fills.instrument]
    asked = orders[orders["action"] != codes.CANCEL]
    ids, slot = np.unique(asked["id"], return_inverse=True)
    most = np.zeros(len(ids), "i8")
    np.maximum.at(most, slot, asked["qty"])
    gross = result.raw["curve"]["gross"]
    rested, ahead = done.rested[done.maker], done.ahead[np.isfinite(done.ahead)]
    wide = [bps(np.where(np.isfinite(after), done.spread, NAN), fills.price, size) for after in done.markouts]
    left = [bps(after, fills.price, size) for after in done.markouts]
    return {
        "net_pnl": parts.total, "spread_pnl": parts.spread, "inventory_pnl": parts.inventory,
        "carry_pnl": parts.carry, "spread_captured": bps(done.spread, fills.price, size),
        "markout_1s": left[0], "markout_5s": left[1], "markout_30s": left[2], "adverse_selection": wide[1] - left[1],
        "maker_share": ratio(float(size[done.maker].sum()), float(size.sum())),
        "fill_ratio": ratio(float(np.abs(fills.lots).sum()), float(most.sum())),
        "quote_trade_ratio": ratio(float(len(orders)), float(len(fills.ts))),
        "queue_ahead": float(np.median(ahead)) if len(ahead) else NAN,
        "queue_seconds": float(np.median(rested)) if len(rested) else NAN,
        "average_inventory": time_mean(result.curve[0], np.ascontiguousarray(gross)),
        "max_inventory": float(gross.max()) if len(gross) else NAN,
    }  # fmt: skip


def markout_curve(result: "Result", chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Mean mark-out in bps at each of CURVE over (a sample of) the chosen fills, and its standard error.

    At 0 s it is what is left once all events of the moment of the fill have passed.
    """
    fills, rows = result.fill_columns, np.flatnonzero(chosen)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype("i8"))] if len(rows) > SAMPLE else rows
    ts, index, price = fills.ts[rows], fills.instrument[rows], fills.price[rows]
    end = int(result.tape.events["ts"].max())
    found = marks_of(result, [questions(ts + round(h * SECOND), index) for h in CURVE])
    means, errors = np.full(len(CURVE), NAN), np.full(len(CURVE), NAN)
    for k, then in enumerate(found):
        known = (then["ts"] <= end) & np.isfinite(then["mark"])
        won = (1e4 * np.sign(fills.lots[rows]) * (then["mark"] / price - 1.0))[known]
        if len(won) > 1:
            means[k], errors[k] = won.mean(), won.std(ddof=1) / len(won) ** 0.5
    return means, errors
