"""Positions and the account: the only file that writes position, cash and value.

Law 1: sum of fills = position, exactly, in lots; per strategy and per instrument.
Law 2: cash + value = start equity + realised + unrealised - fees, to 1e-9 relative.
Law 3: flat is exactly zero: with nothing held, `value`, `gross` and `used` are 0.0.
"""

from engine.kernel.primitives import cold, hot
from engine.kernel.records import Kernel, Market, Position, instruments, markets, positions


@hot
def move_mark(k: Kernel, m: Market, price: float) -> None:
    """A new price of one instrument, and what it does to the account's totals.

    A flat instrument goes through the same arithmetic: which of many is held is a branch that no processor can guess.
    """
    if k.held != 0:
        worth, weight, carry, before = m.worth, m.weight, m.carry, m.mark
        if k.held == 1 and worth != 0.0:  # the usual case needs no difference, so it cannot drift
            k.value = worth * price
            k.gross = weight * abs(price)
            k.used = carry * abs(price)
        elif price < 0.0 or before < 0.0:
            move_below(k, m, price)
        else:
            value, gross, used, up = k.value, k.gross, k.used, price - before
            k.value = value + worth * up
            k.gross = gross + weight * up
            k.used = used + carry * up
    m.mark = price


@cold
def move_below(k: Kernel, m: Market, price: float) -> None:
    """The same where a price is below zero."""
    out = abs(price) - abs(m.mark)
    k.value += m.worth * (price - m.mark)
    k.gross += m.weight * out
    k.used += m.carry * out


def resum(k: Kernel) -> None:
    """Recompute the totals from the instruments, so that rounding does not accumulate.

    Once in so many events that it costs next to nothing, however short the days are.
    """
    k.next_sum = k.seq + 64 * k.instruments
    if k.held < 2:
        return  # a single one is taken over as it is
    value, gross, used = 0.0, 0.0, 0.0
    for i in range(k.instruments):
        m = markets(k, i)
        if m.net != 0:
            value += m.worth * m.mark
            gross += m.weight * abs(m.mark)
            used += m.carry * abs(m.mark)
    k.value = value
    k.gross = gross
    k.used = used


def change_net(k: Kernel, instrument: int, lots: int) -> None:
    """Move the net position of an instrument, count held instruments, and value what is held now."""
    m, i = markets(k, instrument), instruments(k, instrument)
    net = m.net + lots
    worth = net * i.unit
    weight = abs(worth)
    carry = weight * i.margin
    k.held += int(net != 0) - int(m.net != 0)
    k.value += (worth - m.worth) * m.mark
    k.gross += (weight - m.weight) * abs(m.mark)
    k.used += (carry - m.carry) * abs(m.mark)
    m.net = net
    m.worth = worth
    m.weight = weight
    m.carry = carry
    if k.held == 0:
        k.value = 0.0
        k.gross = 0.0
        k.used = 0.0


def apply_fill(k: Kernel, instrument: int, strategy: int, lots: int, price: float, fee: float) -> None:
    """A fill of `lots` (signed) at `price`: position, average price, realised profit, cash."""
    m, unit = markets(k, instrument), instruments(k, instrument).unit
    p = positions(k, strategy * k.instruments + instrument)
    before = p.qty
    if before == 0 or (before > 0) == (lots > 0):
        p.average = (p.average * abs(before) + price * abs(lots)) / (abs(before) + abs(lots))
    else:
        closed = min(abs(before), abs(lots))
        gain = closed * (price - p.average) * unit
        if before < 0:
            gain = -gain
        p.realised += gain
        k.realised += gain
        if abs(lots) > abs(before):
            p.average = price
        elif abs(lots) == abs(before):
            p.average = 0.0
    p.qty = before + lots
    p.fees += fee
    p.fills += 1
    k.cash -= lots * unit * price + fee
    k.fees += fee
    k.turnover += abs(lots) * unit * price
    if m.mark == 0.0:
        move_mark(k, m, price)
    change_net(k, instrument, lots)


@hot
def apply_mark(k: Kernel, m: Market, ts: int, price: float) -> None:
    """A new last price."""
    m.ts = ts
    move_mark(k, m, price)


def apply_cash(k: Kernel, instrument: int, per_unit: float) -> None:
    """A dividend or a funding payment: `per_unit` of cash for each unit held (negative: paid)."""
    m = markets(k, instrument)
    if m.net != 0:
        amount = m.net * instruments(k, instrument).lot * per_unit
        k.cash += amount
        k.realised += amount


def apply_split(k: Kernel, instrument: int, ratio: float) -> None:
    """`ratio` new units for one old. Fractions of a lot are paid out in cash at the last price.

    The account gets the whole lots of its net position, as a venue would give them; the strategies share them.
    """
    m, unit = markets(k, instrument), instruments(k, instrument).unit
    held, given = 0, 0  # lots before and after the split, of the strategies up to this one
    for s in range(k.strategies):
        p = positions(k, s * k.instruments + instrument)
        if p.qty != 0:
            held += p.qty
            upto = int(abs(held * ratio) + 1e-9)
            if held < 0:
                upto = -upto
            whole = upto - given
            given = upto
            fraction = p.qty * ratio - whole
            if abs(fraction) > 1e-9:
                gain = fraction * (m.mark - p.average) * unit / ratio
                k.cash += fraction * m.mark / ratio * unit
                p.realised += gain
                k.realised += gain
            change_net(k, instrument, whole - p.qty)
            p.qty = whole
            p.average = p.average / ratio if whole != 0 else 0.0
    move_mark(k, m, m.mark / ratio)


def correct(k: Kernel, instrument: int, strategy: int, lots: int, price: float) -> None:
    """A CORRECTION: the venue's truth differs by `lots`, taken over at `price` without a fee."""
    p: Position = positions(k, strategy * k.instruments + instrument)
    fills = p.fills
    apply_fill(k, instrument, strategy, lots, price, 0.0)
    p.fills = fills
