"""Agreeing with the venue: it is asked until it has answered for every order, and the kernel is brought to its word.

Law 1: what is reconciled is the kernel as it is, with an answer that is not older than it.
Law 2: the journal is read in a thread: the loop turns, however long the journal is.
"""

import asyncio
import logging
import time
from functools import partial
from typing import Any

from engine.errors import VenueError
from engine.journal import Journal
from engine.live.commands import Commands
from engine.live.prices import Prices
from engine.live.redis_wire import Backoff
from engine.ports import Orders
from engine.reconcile import KernelView, reconcile
from engine.recovery import instructions

LOG = logging.getLogger("tandem.live")


async def agree(engine: Any) -> None:
    """Reconcile; returns when that is done, or when the engine ends. Raises VenueError when a newer one is heard."""
    e, backoff, machine, told = engine, Backoff(), engine.session.machine, set[str]()
    while not e.ending:
        e.turned()
        kernel = KernelView.of(machine)
        try:
            view = await e.venue.query(kernel.open(), kernel.last_exec)
        except VenueError as error:
            if e.venue.fenced:
                raise
            LOG.warning("%s Nothing is sent before it answers.", error)
            await asyncio.sleep(backoff.next())
            continue
        known = await written(e)
        kernel = KernelView.of(machine)  # a command or a report may have come meanwhile
        if kernel.last_exec > view.last_exec and view.last_exec:
            await asyncio.sleep(0.01)
            continue
        if e.prices is not None:
            e.prices.fill(kernel)
        found = reconcile(kernel, view, e.time.receipt(), names=e.names.names, instructions=known,
                          resend_ns=int(e.seat.resend_s * 1e9))  # fmt: skip
        for said in [one for one in found.findings if one not in told]:
            LOG.warning("reconciliation: %s", said)
            e.stats.corrected += 1
        told.update(found.findings)
        orders = e.session.advance(found.events)
        e.venue.send(found.resend)
        e.send(orders)
        if not found.doubt and not found.unpriced:
            e.reconciled = True
            return
        if found.unpriced and e.prices is None and not e.listening:
            e.prices = Prices(e.feed)
            await e.feed.start(e.heard)
        await asyncio.sleep(backoff.next())


async def entered(engine: Any) -> None:
    """Until an observer may trade: it has the account, and agrees with its venue. Who asks meanwhile waits for the same
    attempt; after one that failed there is another. Raises WireError, VenueError."""
    e = engine
    while not (e.lease.whole and e.reconciled):
        if e.lease.whole and e.entering is None:
            return  # it began with the account: commands wait until it has reconciled
        if e.ending:
            raise Commands.too_late()
        if not (e.lease.whole or e.reconciled):  # it still takes its first look, which must not pass for this one
            await asyncio.sleep(0.01)
            continue
        if e.entering is None or e.entering.done():
            e.entering = asyncio.get_running_loop().create_task(enter(e))
        await asyncio.shield(e.entering)


async def enter(engine: Any) -> None:
    """The account first, then what its venue says."""
    engine.venue.enter(await engine.lease.take_account())
    engine.reconciled = False
    await agree(engine)


async def written(engine: Any) -> dict[int, Orders]:
    """The latest instruction about each order in doubt, as the journal has it now."""
    journal, loop = engine.session.journal, asyncio.get_running_loop()
    while journal is not None:
        doubtful, before = KernelView.of(engine.session.machine).in_doubt(), journal.place.orders
        if not doubtful:
            break
        engine.turned()
        began, folder = time.monotonic(), journal.folder
        read = partial(instructions, Journal(folder), doubtful, engine.start)
        found = await loop.run_in_executor(None, read)
        if journal.place.orders == before:
            return found
        LOG.info("orders were written while the journal was read (%.1f s); reading again", time.monotonic() - began)
    return {}
