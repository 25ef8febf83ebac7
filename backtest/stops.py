"""Stops: orders that wait for a price, and trailing ones that follow it.

A trailing stop stays at a distance from the best price since it came, below it for a sale, above it for a purchase, and
never loosens. The price it looks at is the one it would trade at: the touch of a book, the open and then the far end
of a bar. Once its price has come it is a market order, like any stop.
"""

from backtest.records import Venue, VenueOrder, venue_instruments
from engine.kernel import codes
from engine.kernel.records import Order
from engine.kernel.wishes import to_tick


def stopped(o: VenueOrder) -> bool:
    """Whether it is a stop that waits for its price."""
    return o.type >= codes.STOP and not o.triggered


def at_market(o: VenueOrder) -> bool:
    """Whether the order trades at any price now."""
    return o.type == codes.MARKET or ((o.type == codes.STOP or o.type == codes.TRAILING) and o.triggered != 0)


def at_limit(o: VenueOrder) -> bool:
    """Whether the order is a limit by now."""
    return o.type == codes.LIMIT or (o.type == codes.STOP_LIMIT and o.triggered != 0)


def reached(o: VenueOrder, price: float, near: float) -> bool:
    """Whether a price has come to the stop; relative distances up to `near` are none."""
    return price > 0.0 and o.stop != 0.0 and (price - o.stop) * o.side >= -near * price


def follow(v: Venue, o: VenueOrder, price: float) -> None:
    """Let a trailing stop follow a price (0 = there is none)."""
    if price > 0.0:
        stop = to_tick(price + o.price * o.side, venue_instruments(v, o.instrument), -o.side)
        if o.stop == 0.0 or (o.stop - stop) * o.side > 0.0:
            o.stop = stop


def set_prices(v: Venue, o: VenueOrder, order: Order, last: float) -> None:
    """The prices of a new or replaced order. A trailing stop begins at `last`, afresh when its distance changes."""
    if o.type != codes.TRAILING or order.stop > 0.0 or order.price != o.price:
        o.stop = order.stop
    o.price = order.price
    if stopped(o) and o.type == codes.TRAILING:
        follow(v, o, last)
