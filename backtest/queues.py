"""The place of a resting order in the queue at its price, as far as the top of the book tells it.

Whoever joins stands behind the volume that is shown at the price; trades at the price take from the front (quotes.py).
  less volume and no trade that explains it   cancels, ahead of or behind us as the queue model says
  the quote is worse than our price           nothing is ahead any more
Behind the touch nothing is shown: whoever joins there counts everything that appears at the price as ahead.
"""

import math

from backtest.records import Venue, VenueBook, VenueOrder, venue_books
from engine.kernel.events import Event

SAME = 1e-9  # relative: prices nearer to each other are one price of the grid
FRONT, POWER = 1, 2  # queue models; 0: cancels come from behind us


def join_queue(v: Venue, o: VenueOrder) -> None:
    """The volume ahead of an order that comes to rest at its price."""
    b = venue_books(v, o.instrument)
    best = b.bid if o.side > 0 else b.ask
    shown = b.bid_volume if o.side > 0 else b.ask_volume
    if abs(o.price - best) <= SAME * o.price:
        o.ahead = shown
    elif best <= 0.0 or (o.price - best) * o.side > 0.0:
        o.ahead = 0.0
    else:
        o.ahead = math.inf  # behind the touch: unknown until it is shown


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


def requeue(v: Venue, ev: Event, o: VenueOrder, b: VenueBook) -> None:
    """A new quote moves the place of a resting order in its queue. `b` is the book before it."""
    best = ev.bid if o.side > 0 else ev.ask
    shown = ev.bid_volume if o.side > 0 else ev.ask_volume
    if abs(o.price - best) <= SAME * o.price:
        before = b.bid if o.side > 0 else b.ask
        if abs(before - best) <= SAME * best:
            was = b.bid_shown if o.side > 0 else b.ask_shown
            gone = was - shown - (b.bid_traded if o.side > 0 else b.ask_traded)
            if gone > 0.0:
                o.ahead -= cancels_ahead(v, o.ahead, gone, was - o.ahead)
        o.ahead = max(0.0, min(o.ahead, shown))
    elif best <= 0.0 or (o.price - best) * o.side > 0.0:
        o.ahead = 0.0
