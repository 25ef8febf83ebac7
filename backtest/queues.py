"""The place of a resting order in the queue at its price, as far as the market tells it.

Whoever joins stands behind the volume that is shown at the price; trades at the price take from the front (quotes.py).
  less volume and no trade that explains it   cancels, ahead of or behind us as the queue model says
  the best price is worse than ours           nothing is ahead any more
With depth the volume of every level is known (depth.py). Without, nothing is shown behind the touch: whoever joins
there counts everything that appears at the price as ahead.
"""

import math

from backtest.records import Venue, VenueOrder, side_at, venue_books, venue_depth, venue_halves
from engine.kernel.books import key_of
from engine.kernel.events import Event
from engine.kernel.levels import volume_at
from engine.kernel.primitives import address_of, cold, hot

SAME = 1e-9  # relative: prices nearer to each other are one price of the grid
QUOTE = 24  # bytes of a quote before its bid
FRONT, POWER = 1, 2  # queue models; 0: cancels come from behind us


def has_book(v: Venue, instrument: int) -> bool:
    """Whether the tape tells the depth of an instrument."""
    return v.depth_at != 0 and venue_depth(v, instrument).first >= 0


def behind_touch(v: Venue, o: VenueOrder, best: float) -> float:
    """The volume at the price of an order that is not at the touch and does not better it; inf while it is unknown."""
    if not has_book(v, o.instrument):
        return math.inf if best > 0.0 else 0.0
    d = venue_depth(v, o.instrument)
    h, key = venue_halves(v, d.first + (0 if o.side > 0 else 1)), key_of(d, o.price) * o.side
    return volume_at(h, key) if key != 0 and not d.stale and key >= h.horizon else math.inf


def join_queue(v: Venue, o: VenueOrder) -> None:
    """The volume ahead of an order that comes to rest at its price."""
    b = venue_books(v, o.instrument)
    best = b.bid if o.side > 0 else b.ask
    if best > 0.0 and abs(o.price - best) <= SAME * o.price:
        o.ahead = b.bid_volume if o.side > 0 else b.ask_volume
    elif best > 0.0 and (o.price - best) * o.side > 0.0:
        o.ahead = 0.0
    else:
        o.ahead = behind_touch(v, o, best)
    o.shown = o.ahead if o.ahead < math.inf else 0.0
    o.traded = 0.0


def cancels_ahead(v: Venue, ahead: float, gone: float, behind: float) -> float:
    """How much of the volume that was cancelled stood ahead of us.

    Power model: the front's share is front^n / (front^n + back^n); n = 1 is proportional. Source: Rigtorp 2013,
    "Estimating order queue position".
    """
    if v.queue == FRONT:
        return gone
    if v.queue == POWER and ahead < math.inf:
        front, back = ahead**v.power, max(behind, 0.0) ** v.power
        return gone * front / (front + back) if front + back > 0.0 else 0.0
    return 0.0


def told(v: Venue, o: VenueOrder, volume: float) -> None:
    """The volume at the price of a resting order is told anew: its place moves up by the cancels ahead of it."""
    gone = o.shown - volume - o.traded
    if gone > 0.0:
        o.ahead -= cancels_ahead(v, o.ahead, gone, o.shown - o.ahead)
    o.ahead = max(0.0, min(o.ahead, volume))
    o.shown = volume
    o.traded = 0.0


@hot
def requeue(v: Venue, ev: Event, o: VenueOrder) -> bool:
    """A new quote moves the place of a resting order in its queue; whether its other side has come to the order."""
    price, side, asks = o.price, o.side, 8 * int(o.side < 0)
    ours, other = side_at(address_of(ev) + QUOTE + asks), side_at(address_of(ev) + QUOTE + 8 - asks).price
    best, volume = ours.price, ours.volume
    better = (price - best) * side if best > 0.0 else math.inf
    if v.queue != 0:
        requeue_by_model(v, o, better, volume)
    else:  # without a branch, as the next quote may be anywhere
        o.ahead = min(o.ahead, volume if abs(better) <= SAME * price else 0.0 if better > 0.0 else math.inf)
        if v.depth_at != 0 and abs(better) <= SAME * price:
            o.shown = volume  # a book tells what differs from it
    return (price - other) * side >= -SAME * other


@cold
def requeue_by_model(v: Venue, o: VenueOrder, better: float, volume: float) -> None:
    """The same where cancels may come from before us: what was shown and traded tells how many did."""
    if abs(better) <= SAME * o.price:
        told(v, o, volume)
    elif better > 0.0:
        o.ahead = 0.0
    elif not has_book(v, o.instrument):
        o.shown = 0.0  # behind the touch: not seen
