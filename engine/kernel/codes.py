"""Every enumerated word of the kernel, as plain integers that compile to constants.

Law 1: a number, once given, keeps its meaning; journals outlive processes.
Law 2: every code has a name here, and `NAMES` turns it back into the word that people read.
"""

# Event kinds: what can enter the kernel. One door, one list.
BAR = 1
QUOTE = 2
TRADE = 3
DEPTH = 4
REPORT = 5
TIMER = 6
COMMAND = 7
GAP = 8
CORRECTION = 9
FUNDING = 10
SPLIT = 11
DIVIDEND = 12
SLICE = 13  # not an event: the end of a timestamp
START = 14  # not an event: before the first one
KINDS = 16

# Depth: the `code` of a DEPTH event. The first snapshot row of a group clears the book.
UPDATE = 0
SNAPSHOT = 1

# Execution reports: the `code` of a REPORT event.
ACK = 1
FILL = 2
REJECT = 3
CANCELLED = 4
EXPIRED = 5
REPLACED = 6
CANCEL_REJECT = 7

# Order actions.
NEW = 1
CANCEL = 2
REPLACE = 3

# Sides, signed so that `side * qty` is the change of the position.
BUY = 1
SELL = -1

# Order types.
MARKET = 1
LIMIT = 2
STOP = 3
STOP_LIMIT = 4
TRAILING = 5

# Time in force.
GTC = 1
DAY = 2
IOC = 3
FOK = 4
GTD = 5

# Order flags, a bit mask.
POST_ONLY = 1
REDUCE_ONLY = 2
BY_TARGET = 4  # the order works towards a target, so it counts as pending for the next one
RISK_EXIT = 8  # sent by the kernel itself to flatten after a breach

# Signal kinds.
SIGNAL_TARGET = 1
SIGNAL_WEIGHT = 2
SIGNAL_ORDER = 3
SIGNAL_CANCEL = 4
SIGNAL_CANCEL_ALL = 5
SIGNAL_REPLACE = 6

# States of an order as the kernel knows it; the legal moves between them are a table in orders.py.
FREE = 0
RESERVED = 1
SENT = 2
WORKING = 3
CANCELLING = 4
REPLACING = 5
DONE_FILLED = 6
DONE_CANCELLED = 7
DONE_REJECTED = 8
DONE_EXPIRED = 9

# Reasons: why risk refused a signal, or why a venue rejected an order.
OK = 0
KILLED = 1
STRATEGY_STOPPED = 2
NOT_ALLOWED = 3
BLOCKED = 4
NO_MARKET = 5
STALE_MARKET = 6
BAD_ORDER = 7
ORDER_QTY = 8
ORDER_VALUE = 9
PRICE_COLLAR = 10
POSITION = 11
GROSS_EXPOSURE = 12
NET_EXPOSURE = 13
OPEN_ORDERS = 14
ORDER_RATE = 15
DAILY_LOSS = 16
DRAWDOWN = 17
SELF_MATCH = 18
SHORT_SALE = 19
MARGIN = 20
REDUCE_ONLY_SIDE = 21
QUEUE_FULL = 22
EXPIRED_SIGNAL = 23
UNKNOWN_ORDER = 24
POST_ONLY_CROSS = 25
NO_LIQUIDITY = 26
NETTED = 27  # no refusal: the part of a wish that another strategy took the other side of, without the venue
REASONS = 28

# What a breach of a risk limit does, beyond the refusal itself.
REFUSE = 0
CANCEL_ORDERS = 1
FLATTEN = 2
HALT = 3

# Halts: terminal states of the kernel.
RUNNING = 0
HALT_RISK = 1
HALT_OVERFLOW = 2
HALT_TRANSITION = 3
HALT_CLOCK = 4
HALT_INSTRUMENT = 5

# Faults: terminal states of one strategy.
FAULT_HANDLER = 1
FAULT_QUEUE = 2
FAULT_PARAMS = 3

# Commands: the `code` of a COMMAND event.
PAUSE = 1
RESUME = 2
KILL = 3
CLEAR_KILL = 4
TRADING = 5
RELOAD = 6

# What a session may do: the argument of the TRADING command.
LIVE = 0
SIMULATION = 1
OBSERVATION = 2

# Why a driver returned before the end of its tape.
DRAIN = 1
FAULTED = 2
HALTED = 3


def _names(*words: str) -> dict[int, str]:
    return {globals()[word]: word.lower() for word in words}


NAMES: dict[str, dict[int, str]] = {
    "kind": _names("BAR", "QUOTE", "TRADE", "DEPTH", "REPORT", "TIMER", "COMMAND", "GAP", "CORRECTION",
                   "FUNDING", "SPLIT", "DIVIDEND"),
    "report": _names("ACK", "FILL", "REJECT", "CANCELLED", "EXPIRED", "REPLACED", "CANCEL_REJECT"),
    "action": _names("NEW", "CANCEL", "REPLACE"),
    "side": _names("BUY", "SELL"),
    "type": _names("MARKET", "LIMIT", "STOP", "STOP_LIMIT", "TRAILING"),
    "tif": _names("GTC", "DAY", "IOC", "FOK", "GTD"),
    "reason": _names("OK", "KILLED", "STRATEGY_STOPPED", "NOT_ALLOWED", "BLOCKED", "NO_MARKET", "STALE_MARKET",
                     "BAD_ORDER", "ORDER_QTY", "ORDER_VALUE", "PRICE_COLLAR", "POSITION", "GROSS_EXPOSURE",
                     "NET_EXPOSURE", "OPEN_ORDERS", "ORDER_RATE", "DAILY_LOSS", "DRAWDOWN", "SELF_MATCH",
                     "SHORT_SALE", "MARGIN", "REDUCE_ONLY_SIDE", "QUEUE_FULL", "EXPIRED_SIGNAL",
                     "UNKNOWN_ORDER", "POST_ONLY_CROSS", "NO_LIQUIDITY", "NETTED"),
    "breach": _names("REFUSE", "CANCEL_ORDERS", "FLATTEN", "HALT"),
    "halt": _names("RUNNING", "HALT_RISK", "HALT_OVERFLOW", "HALT_TRANSITION", "HALT_CLOCK", "HALT_INSTRUMENT"),
    "fault": _names("FAULT_HANDLER", "FAULT_QUEUE", "FAULT_PARAMS"),
    "state": _names("FREE", "RESERVED", "SENT", "WORKING", "CANCELLING", "REPLACING", "DONE_FILLED",
                    "DONE_CANCELLED", "DONE_REJECTED", "DONE_EXPIRED"),
    "trading": _names("LIVE", "SIMULATION", "OBSERVATION"),
    "command": _names("PAUSE", "RESUME", "KILL", "CLEAR_KILL", "TRADING", "RELOAD"),
}  # fmt: skip
