"""The latest prices of a feed whose events are not for the session yet: what a position is taken over at."""

from engine.kernel import codes
from engine.ports import Feed
from engine.reconcile import KernelView


class Prices:
    """Looks at what a feed has; a session that begins later than the feed misses it, as one that was not there."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._known: dict[int, float] = {}

    def fill(self, kernel: KernelView) -> None:
        """Put the latest price of each instrument where there is no mark: close, middle of the quote, trade."""
        for row in self._feed.drain():
            kind, price = int(row["kind"]), 0.0
            if kind == codes.BAR:
                price = float(row["close"])
            elif kind == codes.QUOTE and row["bid"] > 0.0 and row["ask"] > 0.0:
                price = 0.5 * (float(row["bid"]) + float(row["ask"]))
            elif kind == codes.TRADE:
                price = float(row["price"])
            elif kind == codes.DEPTH and row["volume"] > 0.0:  # near enough where nothing else is told
                self._known.setdefault(int(row["instrument"]), float(row["price"]))
            if price != 0.0:
                self._known[int(row["instrument"])] = price
        for i, price in self._known.items():
            kernel.marks[i] = kernel.marks[i] or price
