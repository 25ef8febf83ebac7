"""Asking an execution service what it has: single calls put together into one view.

Law: a view is of one moment. The calls are several, so it is taken again until all of them know the same last report.
But for an observer, beside whom another trades: he hears of his own orders, and nothing of positions.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from engine.errors import VenueError
from engine.kernel.events import Event
from engine.live.codec import Names
from engine.live.messages import SIGNS, number_of, positions_of, reports_of
from engine.live.service import STATES
from engine.live.wire import execution_pb2 as pb
from engine.ports import Events, Standing, VenueView

STANDS = {number: code for code, number in STATES.items()}
TRIES = 20  # to see an account stand still
Ask = Callable[[str, Any], Awaitable[Any]]  # name of a call, request -> reply


async def view(ask: Ask, names: Names, question: Any, since: int) -> VenueView:
    """What the venue has as of one report: the orders of a QueryRequest, open ones, reports after `since`, positions.

    Raises VenueError when the account does not stand still, and what `ask` raises.
    """
    account = pb.AccountRequest(account=question.account)
    for _ in range(TRIES):
        reports, upto = await reports_after(ask, names, question.account, since)
        orders, working = await ask("Query", question), await ask("OpenOrders", account)
        held = await ask("Positions", account)
        looks = not question.connection
        if looks or {orders.last_exec, working.last_exec, held.exec_id} == {upto}:
            break
    else:
        raise VenueError(f"account {question.account} does not stand still: {TRIES} looks at it saw {TRIES} different "
                         "ones; stop what trades on it and ask again.")  # fmt: skip
    positions = np.zeros(len(names.names), np.int64)
    for i, (qty, _) in positions_of(held, names).items():
        positions[i] = qty
    known = {one.order_id: None if one.state == pb.STATE_UNKNOWN else standing(one, names) for one in orders.orders}
    open_orders = [] if looks else [standing(one, names) for one in working.orders]
    return VenueView(known, open_orders, reports, since, upto, None if looks else positions)


async def reports_after(ask: Ask, names: Names, account: str, since: int) -> tuple[Events, int]:
    """Reports after an exec id, and the exec id of the latest."""
    parts, upto, last = [np.zeros(0, "V64")], since, since + 1
    while upto < last:
        batch = await ask("Reports", pb.ReportsRequest(account=account, since=upto))
        last = int(batch.last_exec)
        if not batch.reports:
            break
        rows, _ = reports_of(batch, names)
        parts.append(rows.view("V64"))
        upto = batch.reports[-1].exec_id
    return np.concatenate(parts).view(Event.dtype), last


def standing(one: Any, names: Names) -> Standing:
    """An OrderState as the engine has it."""
    return Standing(one.order_id, number_of(names, one.instrument), SIGNS[one.side], one.qty, one.filled, one.price,
                    one.stop, STANDS[one.state])  # fmt: skip
