"""What goes wrong between two market events of a tick tape is told like anything else."""

import pytest

from backtest.run import prepare
from engine.errors import StrategyFault
from engine.kernel import codes
from engine.kernel.events import Quote, Report
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param
from tests.backtest.test_ticks import BOOK, tape


class Breaks(Strategy):
    """Buys at the first quote, and fails when it hears of the fill."""

    qty: float = param(1.0, gt=0)
    n: int
    zero: float

    def on_quote(self, quote: Quote, ctx: Ctx) -> None:
        self.n += 1
        if self.n == 1:
            ctx.buy(self.qty)

    def on_report(self, report: Report, ctx: Ctx) -> None:
        if report.code == codes.FILL:
            self.zero = 1.0 / self.zero


@pytest.mark.parametrize("events", [8, 2], ids=["on the way", "after the last event"])
def test_a_fault_at_a_report_is_raised_with_its_traceback(events: int) -> None:
    for compiled in (True, False):
        with pytest.raises(StrategyFault, match=r"ZeroDivisionError") as told:
            prepare(Breaks(), tape(*[BOOK] * events), cash=1e6, order_ms=1.0, report_ms=2.5, compiled=compiled).run()
        assert "n=" in str(told.value)


def test_a_halt_that_risk_asks_for_at_a_report_ends_the_run() -> None:
    """The fill puts the account below its floor: the kernel halts, and the driver says so."""
    prepared = prepare(
        Breaks(qty=4.0), tape(*[BOOK] * 8), cash=1e6, order_ms=1.0, report_ms=2.5, taker_bps=500.0,
        drawdown=1e-7, breach={"drawdown": "halt"}, on_fault="continue",
    )  # fmt: skip
    drive = prepared.drive()
    assert drive.advance() in (codes.HALTED, codes.FAULTED)
    assert drive.machine.kernel.halt == codes.HALT_RISK
