"""Round-trip trades out of fills, first in first out, and the figures that follow from them.

Law 1: the k-th unit bought always pairs with the k-th unit sold, whichever came first; that is FIFO, also through
       a reversal, so the whole matching is two sorted cumulative sums and no loop.
Law 2: profits of all trades, open ones at their last price, plus nothing else, are the change of equity.
Law 3: a trade that spans a split is told in the units of its exit; dividends between entry and exit belong to it.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backtest.metrics import DAY_NS, NAN, Floats, Ints
from backtest.tally import EVEN


class Fills(NamedTuple):
    """Columns of our fills in the order they happened; `lots` are signed, `instrument` and `strategy` indices, `sent`
    when the order was. `order_id` is -1 for what was crossed inside the account, 0 for the fraction of a lot that a
    split paid out."""

    ts: Ints
    instrument: Ints
    strategy: Ints
    lots: Ints | Floats
    price: Floats
    fee: Floats
    order_id: Ints
    sent: Ints


class Actions(NamedTuple):
    """Splits (`ratio` new for one old) and dividends (`cash` for one unit); `mark` is the last price before."""

    ts: Ints
    instrument: Ints
    ratio: Floats
    cash: Floats
    mark: Floats


class Trades(NamedTuple):
    """Columns of round trips; `qty` in units (positive), `side` 1 long or -1 short, `pnl` net of fees."""

    strategy: Ints
    instrument: Ints
    side: Ints
    qty: Floats
    entry_ts: Ints
    exit_ts: Ints
    entry_price: Floats
    exit_price: Floats
    fees: Floats
    dividends: Floats
    pnl: Floats
    returns: Floats
    entry_order: Ints
    exit_order: Ints
    open: NDArray[np.bool_]


NO_ACTIONS = Actions(np.empty(0, "i8"), np.empty(0, "i8"), np.empty(0), np.empty(0), np.empty(0))


def _table(columns: list[Any]) -> Trades:
    return Trades(*columns)


def split_factors(ts: Ints, actions: Actions, rows: NDArray[np.bool_]) -> Floats:
    """How many units of today one unit at `ts` has become: the product of the later splits. A split comes first."""
    later = np.append(np.cumprod(actions.ratio[rows][::-1])[::-1], 1.0)
    return later[np.searchsorted(actions.ts[rows], ts, "right")]


def moments(fills: Fills, actions: Actions) -> Ints:
    """Times that put fills and splits in order. A split comes before the fills of its time, but for those of orders
    sent before it: it cancels what is open, so these were filled inside the bar that closed just then."""
    when = fills.ts.copy()
    for index in np.unique(actions.instrument[actions.ratio != 1.0]):
        splits = actions.ts[(actions.instrument == index) & (actions.ratio != 1.0)]
        when[(fills.instrument == index) & (fills.sent < fills.ts) & np.isin(fills.ts, splits)] -= 1
    return when


def whole_lots(fills: Fills, actions: Actions) -> Fills:
    """The fills plus one for each fraction of a lot that a split paid out in cash, as the kernel does."""
    extra: list[tuple[int, int, int, float, float]] = []
    times = moments(fills, actions)
    for index in np.unique(actions.instrument[actions.ratio != 1.0]):
        splits = (actions.instrument == index) & (actions.ratio != 1.0)
        mine = fills.instrument == index
        when, lots, strategy = times[mine], fills.lots[mine], fills.strategy[mine]
        held, done = np.zeros(int(strategy.max(initial=-1)) + 1), 0
        for ts, ratio, mark in zip(actions.ts[splits], actions.ratio[splits], actions.mark[splits], strict=True):
            upto = int(np.searchsorted(when, ts, "left"))
            np.add.at(held, strategy[done:upto], lots[done:upto])
            # The account gets whole lots of its net position, and its strategies share them in their order.
            net = np.cumsum(held) * ratio
            given = np.diff(np.copysign(np.floor(np.abs(net) + 1e-9), net), prepend=0.0)
            rest = given - held * ratio
            extra += [(int(ts), int(index), int(s), float(rest[s]), float(mark / ratio))
                      for s in np.flatnonzero(np.abs(rest) > 1e-9)]  # fmt: skip
            held, done = given, upto
    if not extra:
        return fills
    ts_, instrument, strategy_, lots_, price = (np.array(column) for column in zip(*extra, strict=True))
    none = np.zeros(len(extra))
    more = (ts_, instrument, strategy_, lots_, price, none, none.astype("i8"), ts_)
    # Fractions come before the fills of the same time: the split itself did.
    merged = [np.concatenate((new, old)) for new, old in zip(more, fills, strict=True)]
    order = np.argsort(np.concatenate((ts_, times)), kind="stable")
    return Fills(*(column[order] for column in merged))


def adjusted_cash(ts: Ints, actions: Actions, rows: NDArray[np.bool_]) -> Floats:
    """Dividends paid up to `ts` for one unit of today."""
    paid = actions.cash[rows] / split_factors(actions.ts[rows], actions, rows)
    return np.concatenate(([0.0], np.cumsum(paid)))[np.searchsorted(actions.ts[rows], ts, "right")]


def _pairs(fills: Fills, amount: Floats) -> tuple[Ints, Ints, Floats, Ints]:
    """Fill that buys, fill that sells (-1 where still open) and amount of each pair, and the group's key.

    Each group (strategy and instrument) owns a stretch of one long line as long as the larger of what it bought and
    sold. Buys and sells each cut that line; a piece between two cuts has one buy, one sell, or only one of both.
    """
    key = fills.strategy * (int(fills.instrument.max()) + 1) + fills.instrument
    order = np.argsort(key, kind="stable")
    group, amount = key[order], amount[order]
    starts = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))
    which = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(group))))

    def within(values: Floats) -> Floats:
        running = np.cumsum(values)
        return running - np.concatenate(([0.0], running))[starts][which]

    bought, sold = within(np.maximum(amount, 0.0)), within(np.maximum(-amount, 0.0))
    last = np.append(starts[1:], len(group)) - 1
    length = np.maximum(bought[last], sold[last])
    offset = np.concatenate(([0.0], np.cumsum(length)))
    buys, sells = np.flatnonzero(amount > 0), np.flatnonzero(amount < 0)
    buy_cut, sell_cut = bought[buys] + offset[which[buys]], sold[sells] + offset[which[sells]]
    cuts = np.unique(np.concatenate((buy_cut, sell_cut)))
    sizes = np.diff(cuts, prepend=0.0)
    keep = sizes > 1e-7  # rounding of split factors leaves slivers; whole lots never come near
    middle = cuts[keep] - sizes[keep] / 2
    stretch = np.minimum(np.searchsorted(offset, middle, "right") - 1, len(starts) - 1)

    def owner(cut: Floats, rows: Ints) -> Ints:
        at = np.searchsorted(cut, middle, "left")
        row = np.append(rows, -1)[at]
        return np.where((row >= 0) & (which[row] == stretch), order[row], -1)

    return owner(buy_cut, buys), owner(sell_cut, sells), sizes[keep], stretch


def round_trips(fills: Fills, lot: Floats, worth: Floats, last_price: Floats, last_ts: int,
                actions: Actions = NO_ACTIONS) -> Trades:  # fmt: skip
    """FIFO round trips for each strategy and instrument; what is still open at the end is marked at `last_price`.

    `lot`: units of one lot, `worth`: value of one unit at price 1, `last_price`: one for each instrument.
    Pieces of one entry order that one exit order closed are one trade, at average prices.

    >>> one = np.ones(1)
    >>> ts, none = [1, 2, 3], [0, 0, 0]
    >>> columns = [ts, none, none, [10, -4, -6], [5.0, 6.0, 4.0], [0.0, 0.0, 0.0], ts, ts]
    >>> trades = round_trips(Fills(*map(np.array, columns)), one, one, one, 9)
    >>> trades.qty, trades.pnl
    (array([4., 6.]), array([ 4., -6.]))
    """
    fills = whole_lots(fills, actions)
    if len(fills.ts) == 0:
        return _table([np.empty(0, kind) for kind in ("i8 " * 3 + "f8 i8 i8 " + "f8 " * 6 + "i8 i8 ?").split()])
    factor, cash = np.ones(len(fills.ts)), np.zeros(len(fills.ts))
    end_cash, when = np.zeros(len(lot)), moments(fills, actions)
    for index in np.unique(actions.instrument):
        rows, mine = actions.instrument == index, fills.instrument == index
        factor[mine] = split_factors(when[mine], actions, rows)
        cash[mine] = adjusted_cash(fills.ts[mine], actions, rows)
        end_cash[index] = adjusted_cash(np.array([last_ts]), actions, rows)[0]
    buy, sell, amount, group = _pairs(fills, fills.lots * factor)
    is_open = (buy < 0) | (sell < 0)
    long = (sell < 0) | ((buy >= 0) & (buy < sell))
    entry, leave = np.where(long, buy, sell), np.where(long, sell, buy)
    exit_factor = np.where(is_open, 1.0, factor[leave])
    # Neighbouring pieces of the same two orders are one trade.
    entry_order, exit_order = fills.order_id[entry], np.where(is_open, 0, fills.order_id[leave])
    tags = np.stack((group, entry_order, exit_order, long, is_open, exit_factor))
    first = np.flatnonzero(np.append(True, (tags[:, 1:] != tags[:, :-1]).any(axis=0)))
    index, side = fills.instrument[entry], np.where(long, 1, -1)
    units = amount / exit_factor * lot[index]
    fee = fills.fee / (np.abs(fills.lots) * factor)
    paid = np.where(is_open, end_cash[index], cash[leave]) - cash[entry]

    def total(values: Floats) -> Floats:
        return np.add.reduceat(values, first)

    qty = total(units)
    entry_price = total(units * fills.price[entry] * exit_factor / factor[entry]) / qty
    exit_price = total(units * np.where(is_open, last_price[index], fills.price[leave])) / qty
    fees = total(amount * (fee[entry] + np.where(is_open, 0.0, fee[leave])))
    dividends = total(side * amount * lot[index] * paid)
    index, side, stop = index[first], side[first], np.append(first[1:], len(entry)) - 1
    pnl = side * qty * (exit_price - entry_price) * worth[index] - fees + dividends
    cost = qty * entry_price * worth[index]
    pnl[np.abs(pnl) <= EVEN * cost] = 0.0
    trades = Trades(
        strategy=fills.strategy[entry[first]], instrument=index, side=side, qty=qty,
        entry_ts=fills.ts[entry[first]], exit_ts=np.where(is_open[stop], last_ts, fills.ts[leave[stop]]),
        entry_price=entry_price, exit_price=exit_price, fees=fees, dividends=dividends, pnl=pnl,
        returns=np.divide(pnl, cost, out=np.full(len(pnl), NAN), where=cost > 0),
        entry_order=entry_order[first], exit_order=exit_order[first], open=is_open[first],
    )  # fmt: skip
    order = np.lexsort((leave[stop], entry[first], trades.open))
    return _table([column[order] for column in trades])


def win_rate(pnl: Floats) -> float:
    """Share of closed trades with a profit after fees.

    >>> win_rate(np.array([4.0, -6.0, 2.0, 0.0]))
    0.5
    """
    return float(np.count_nonzero(pnl > 0)) / len(pnl) if len(pnl) else NAN


def profit_factor(pnl: Floats) -> float:
    """Sum of profits over sum of losses; NaN without a loss.

    >>> profit_factor(np.array([4.0, -6.0, 5.0]))
    1.5
    """
    lost = -float(pnl[pnl < 0].sum())
    return float(pnl[pnl > 0].sum()) / lost if lost > 0 else NAN


def expectancy(pnl: Floats) -> float:
    """Mean profit of one trade = win rate * average win - loss rate * average loss.

    Source: V. K. Tharp, Trade Your Way to Financial Freedom (1998), in money instead of multiples of risk.

    >>> expectancy(np.array([4.0, -6.0, 5.0]))
    1.0
    """
    return float(pnl.mean()) if len(pnl) else NAN


def sqn(pnl: Floats) -> float:
    """System quality number: sqrt(n) * mean(pnl) / std(pnl, ddof=1).

    Source: V. K. Tharp, Definitive Guide to Position Sizing (2008).

    >>> round(sqn(np.array([4.0, -6.0, 5.0])), 4)
    0.2847
    """
    spread = float(np.std(pnl, ddof=1)) if len(pnl) > 1 else 0.0
    return float(len(pnl) ** 0.5 * pnl.mean()) / spread if spread > 0 else NAN


def trade_metrics(trades: Trades, fees: float) -> dict[str, float]:
    """Figures of the closed trades; `fees`: sum over all fills. A trade still open counts in `open_trades` only."""
    pnl, returns = trades.pnl[~trades.open], trades.returns[~trades.open]
    span = (trades.exit_ts - trades.entry_ts)[~trades.open]
    won, lost = pnl[pnl > 0], pnl[pnl < 0]
    some = len(pnl) > 0
    return {
        "trades": float(len(pnl)), "open_trades": float(np.count_nonzero(trades.open)), "fees": fees,
        "win_rate": win_rate(pnl), "profit_factor": profit_factor(pnl), "expectancy": expectancy(pnl), "sqn": sqn(pnl),
        "average_win": float(won.mean()) if len(won) else NAN,
        "average_loss": float(lost.mean()) if len(lost) else NAN,
        "average_trade": float(returns.mean()) if some else NAN,
        "best_trade": float(returns.max()) if some else NAN,
        "worst_trade": float(returns.min()) if some else NAN,
        "average_trade_days": float(span.mean()) / DAY_NS if some else NAN,
    }  # fmt: skip
