"""The verdict: what a report leads with. The figure out of sample, and in plain words how likely the rest is luck.

Law 1: nothing passes by absence: what was not tested is said to be untested, and no such run is called skill.
Law 2: the figures have the names by which promotion asks for them; what is not defined is left out.
"""

import math
from collections.abc import Mapping
from math import comb
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.figures import PERCENT, number
from backtest.honesty.bootstrap import Interval, intervals
from backtest.honesty.pbo import overfitting
from backtest.honesty.sharpe import Floats, Matrix, deflated, expected_max, min_track_record, moments
from backtest.honesty.sharpe import probabilistic as psr
from backtest.honesty.spa import superior
from engine import ledger as ledgers
from engine import tracking_names as names
from engine.errors import TrackingError
from engine.ledger import Ledger

if TYPE_CHECKING:
    from backtest.result import Result
    from engine.tracking import Helper

WORK = 10_000_000  # Sharpe ratios that CSCV may compute
DRAWN = 500  # series for the intervals
# What the figures have to be for "unlikely to be luck", and beyond which it is most likely just that.
SURE = {names.DSR: 0.95, names.PBO: 0.2, names.SPA: 0.05, names.OOS_SHARPE: 0.0}
DOUBTFUL = {names.DSR: 0.5, names.PBO: 0.5, names.SPA: 0.5, names.OOS_SHARPE: 0.0}
RISING = (names.DSR, names.OOS_SHARPE)  # the larger the better; of the others the smaller

WHOLE = "one run over all of the data holds none back; a sweep does (tandem -m, sweep.split)."
SKILL, OPEN, LUCK = "unlikely to be luck", "may well be luck", "most likely luck"
# What a figure beyond its bound says.
WHY = {names.DSR: "its Sharpe ratio is not surely above what luck gives",
       names.SPA: "lanes without any edge do as well",
       names.PBO: "what is best in one half of the time is too often not in the other",
       names.OOS_SHARPE: "it earned nothing where the choice was tested"}  # fmt: skip


class Verdict(NamedTuple):
    """`word`: one of SKILL, OPEN, LUCK; `lead`: the out-of-sample figure; `sentence`: how likely it is luck, and why;
    `figures`: by the names of `engine.tracking_names`; `intervals`: 95 % of each headline figure, of the out-of-sample
    returns where there are some, else of all."""

    word: str
    lead: str
    sentence: str
    figures: dict[str, float]
    intervals: dict[str, Interval]

    @property
    def many(self) -> bool:
        """Whether more than one lane was tried, so that luck had a choice."""
        return self.figures[names.LEDGER_LANES] > 1

    @property
    def text(self) -> str:
        """Lead and sentence."""
        return f"{self.lead} {self.sentence}"


def verdict(returns: Matrix, per_year: float, *, ledger: Ledger, lanes: Matrix | None = None, oos: Matrix | None = None,
            seed: int = 0, whole: bool = True, given: Mapping[str, float] = {}, lead: str = "", tried: int = 0,
            structures: int = 1, untested: str = "") -> Verdict:  # fmt: skip
    """Judge a chosen lane by its periodic `returns` over all data.

    `ledger`: of the idea on these data, this lane and its sweep included (`engine.ledger.read(…, also=…)`). `lanes`:
    returns of all lanes of its sweep [periods, lanes], if kept; lanes that failed (NaN) are left out. `oos`: returns
    that no choice has seen (`Validation.path.returns`), if there are some. `whole`: whether the tracker was heard; else
    the sentence says that lanes of other sessions are not counted. `given`, `lead`: what the sweep has found already.
    `tried`: lanes that the best one was chosen from, if `lanes` are only some of them: then p-values are those of so
    many, 1 - (1 - p)^(tried / lanes), which is right for independent lanes and too large for others (Z. Sidak 1967).
    `structures`: among how many it was chosen on all data, `oos` included: then that is no figure out of sample.
    `untested`: why there is no `oos`.
    """
    found = {**of_lane(np.asarray(returns, np.float64), per_year, ledger), **given}
    tested = None if oos is None or len(oos) < 2 else np.asarray(oos, np.float64)
    ranges = intervals(np.asarray(returns, np.float64) if tested is None else tested, per_year, seed=seed,
                       count=DRAWN)  # fmt: skip
    if tested is not None:
        for name, key in ((names.OOS_SHARPE, "sharpe"), (names.OOS_RETURN, "total_return"),
                          (names.OOS_ANNUAL, "annual_return"), (names.OOS_DRAWDOWN, "max_drawdown")):  # fmt: skip
            found[name] = ranges[key].value
        found[names.OOS_PERIODS] = float(len(tested))
    if lanes is not None:
        well = np.isfinite(lanes).all(axis=0)
        kept = lanes if well.all() else lanes[:, well]
        if (kept != kept[:, :1]).any():  # of lanes that are all the same none can be chosen wrongly
            found[names.PBO] = overfitting(kept, _blocks(kept.shape[1])).pbo
        test = superior(kept, seed=seed)
        more = max(tried / max(lanes.shape[1], 1), 1.0)
        found[names.SPA], found[names.REALITY_CHECK] = (1 - (1 - p) ** more for p in (test.spa, test.reality_check))
    best = found.pop("luck", math.nan)
    known = {name: value for name, value in found.items() if math.isfinite(value)}
    lead = lead or _lead(known, ranges, untested)
    if structures > 1 and known.pop(names.OOS_SHARPE, None) is not None:
        lead = lead.replace("no choice has seen", f"no choice of numbers has seen, but the choice among {structures} "
                            "structures has")  # fmt: skip
    word, own = _word(known), moments(returns).sharpe * per_year**0.5
    said = _sentence(word, known, best, own, ledger, whole)
    if lanes is not None and tried > lanes.shape[1]:
        said += f" PBO and SPA are told from {lanes.shape[1]:,} of {tried:,} lanes."
    return Verdict(word, lead, said, known, ranges)


def of_lane(returns: Floats, per_year: float, ledger: Ledger) -> dict[str, float]:
    """Figures of the lane itself, and what luck gives the best of the ledger (`luck`, annual).

    Lanes that are all but the same still are a choice: of several at least two count as independent.
    """
    own = moments(returns)
    # Lanes that are alike differ less than independent ones, and it is these that are counted: at least the spread of
    # Sharpe ratios of pure noise over so many periods.
    var = max(ledger.var, per_year / max(len(returns) - 1, 1))
    count = max(ledger.effective, 2.0 if ledger.lanes > 1 else 1.0)
    return {
        names.PSR: psr(own), names.DSR: deflated(own, count, var / per_year),
        names.MIN_TRACK_RECORD: min_track_record(own), "luck": expected_max(count, var),
        names.LEDGER_LANES: float(ledger.lanes), names.LEDGER_EFFECTIVE: count,
    }  # fmt: skip


def _blocks(lanes: int) -> int:
    """As many blocks of CSCV as there is time for, 16 at most, 8 at least."""
    return next((s for s in (16, 14, 12, 10) if comb(s, s // 2) * lanes <= WORK), 8)


def _beyond(known: Mapping[str, float], bounds: Mapping[str, float]) -> list[str]:
    """The figures that are beyond their bounds."""
    return [n for n, bar in bounds.items() if n in known and (known[n] <= bar if n in RISING else known[n] > bar)]


def _word(known: Mapping[str, float]) -> str:
    if _beyond(known, DOUBTFUL):
        return LUCK
    return SKILL if not _beyond(known, SURE) and {names.DSR, names.OOS_SHARPE} <= set(known) else OPEN


def _why(word: str, known: Mapping[str, float]) -> str:
    """What decided, in words."""
    said = [WHY[name] for name in _beyond(known, DOUBTFUL if word == LUCK else SURE)]
    if names.OOS_SHARPE not in known and word == OPEN:
        said.append("no figure tells how the choice fares on data that it has not seen")
    return ", and ".join(said) or "it passed every test that was made"


def _lead(known: dict[str, float], ranges: dict[str, Interval], untested: str) -> str:
    if names.OOS_SHARPE not in known:
        if names.OOS_PERIODS in known:
            return (f"Out of sample: no figure; in {known[names.OOS_PERIODS]:,.0f} periods that no choice has seen, "
                    "what was chosen did not move.")  # fmt: skip
        return f"Out of sample: untested; {untested or 'every period took part in the choice.'}"
    sharpe, fall, total = ranges["sharpe"], known[names.OOS_DRAWDOWN], known[names.OOS_RETURN]
    between = f" (95 %: {sharpe.low:.2f} to {sharpe.high:.2f})" if math.isfinite(sharpe.low) else ""
    return (
        f"Out of sample: Sharpe ratio {sharpe.value:.2f}{between}, return {number(total, PERCENT)}, "
        f"drawdown {number(fall, PERCENT)}, over {known[names.OOS_PERIODS]:,.0f} periods that no choice has seen."
    )


def share(value: float) -> str:
    """A probability as people say it; never quite 0 or 100 %."""
    return "over 99 %" if value > 0.99 else "under 1 %" if value < 0.01 else f"{value:.0%}".replace("%", " %")


def _sentence(word: str, known: dict[str, float], luck: float, own: float, ledger: Ledger, whole: bool) -> str:
    if names.DSR not in known:
        return f"There is too little to judge by: this {OPEN}."
    sure = f"{share(known[names.DSR])} sure"
    said = [f"This {'' if word == OPEN else 'is '}{word}: {_why(word, known)}."]
    if ledger.lanes > 1:
        few = round(known[names.LEDGER_EFFECTIVE])
        alike = f" ({few:,} independent)" if few < ledger.lanes else ""
        said.append(f"Of {ledger.lanes:,} lanes tried {ledger.idea} on these data{alike}, luck alone would give the "
                    f"best a Sharpe ratio of {luck:.2f}; this one has {own:.2f}, and that it is better than luck is "
                    f"{sure} (deflated Sharpe).")  # fmt: skip
    else:
        said.append(f"One lane {ledger.idea} was tried, and that its Sharpe ratio of {own:.2f} is above zero is "
                    f"{sure}.")  # fmt: skip
    if names.PBO in known:
        said.append("What is best in one half of the time is below the median in the other in "
                    f"{share(known[names.PBO])} of the splits (PBO).")  # fmt: skip
    if names.SPA in known:
        said.append(f"Without any edge, a best lane as good as this comes up in {share(known[names.SPA])} of histories "
                    "(SPA, against cash).")  # fmt: skip
    if not whole:
        said.append("The tracker was not heard, so what other sessions tried is not counted.")
    return " ".join(said)


def judge(result: "Result", experiment: str, tracking_uri: str | None = None, helper: "Helper | None" = None,
          book: tuple[Ledger, bool] | None = None) -> Verdict:  # fmt: skip
    """How likely a backtest is luck, after all lanes that its experiment ever saw on its data, itself included; the
    result keeps it, for the report and the tracker. `book`: what `heard` gave, if it was asked already."""
    sharpe = result.metrics[names.SHARPE]
    also = {"tags": result.tags, "metrics": {names.SHARPE: sharpe} if math.isfinite(sharpe) else {}}
    known, whole = book or heard(experiment, also, tracking_uri, helper)
    given, lead = result.tested
    result.verdict = verdict(result.periods.returns, result.periods.per_year, ledger=known, whole=whole, given=given,
                             lead=lead, untested=WHOLE)  # fmt: skip
    return result.verdict


def heard(experiment: str, also: dict[str, Any], tracking_uri: str | None = None,
          helper: "Helper | None" = None) -> tuple[Ledger, bool]:  # fmt: skip
    """The ledger on the data of a run that is not tracked yet, and whether the tracker answered; if not, it has that
    run alone: the sentence says so, and whoever logs the run hears of the error again."""
    span = [int(also["tags"][key]) if key in also["tags"] else None for key in (names.FIRST_NS, names.LAST_NS)]
    try:
        return ledgers.read(experiment, *span, also=also, tracking_uri=tracking_uri, helper=helper), True
    except TrackingError:
        return ledgers.alone(also), False
