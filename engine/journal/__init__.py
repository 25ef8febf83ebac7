"""The journal: the append-only tape of a session, from which everything can be had again.

JournalWriter   what a session writes to: events before the kernel sees them, orders before they are sent
Journal         what was written: header, blocks, notes about a torn end
snapshots       states of a session in files of their own, so that a restart need not begin at the beginning
"""

from engine.journal.reader import Journal
from engine.journal.writer import JournalWriter

__all__ = ["Journal", "JournalWriter"]
