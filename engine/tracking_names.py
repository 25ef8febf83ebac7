"""Names in the tracker that one part of Tandem writes and another reads back: each stands here once.

Law 1: who writes or reads such a tag or figure takes its name from here; nobody spells one out.
Law 2: a figure that could not be computed is absent, never zero; who needs it refuses without it.
"""

# Tags of every run that evaluates something on data: what it is, and which data it saw.
KIND = "kind"
FIRST_NS, LAST_NS = "data_first_ns", "data_last_ns"  # ns UTC of the first and the last event
INSTRUMENTS = "data_instruments"  # names, separated by commas; absent where they do not fit into a tag
STRATEGY = "strategy_class"  # names of the classes that ran, separated by commas
CONTENT = "content"  # hash of what was evaluated: settings and parameters; a repetition has the same

# Values of KIND. The ledger counts the first two: a chosen lane was counted with its sweep, and a live session
# evaluates nothing.
BACKTEST, SWEEP, LANE, LIVE = "backtest", "sweep", "lane", "live"

# Figures of a sweep's parent run by which the ledger counts without reading its table.
LANES = "lanes"  # evaluated, those without a Sharpe ratio included
LANES_SKIPPED = "lanes_skipped"  # not evaluated: a rule across parameters forbids them
LANES_EFFECTIVE = "lanes_effective"  # independent ones, by the correlation of their returns
SHARPE_MEAN, SHARPE_VAR = "lanes_sharpe_mean", "lanes_sharpe_var"  # over the lanes, of annual Sharpe ratios
PER_YEAR = "periods_per_year"
SHARPE = "sharpe"  # of a single backtest, annual

# Figures of validation, read by the report's lead and by the gates of promotion. Rates are fractions.
OOS_SHARPE = "oos_sharpe"  # annual, of the returns that no choice of parameters has seen
OOS_RETURN, OOS_ANNUAL, OOS_DRAWDOWN = "oos_total_return", "oos_annual_return", "oos_max_drawdown"
OOS_PERIODS = "oos_periods"  # how many such returns there are
PSR = "probabilistic_sharpe"  # probability that the true Sharpe ratio is above zero, one lane
DSR = "deflated_sharpe"  # probability that it is above the best of all lanes of the ledger by luck alone
PBO = "pbo"  # probability of backtest overfitting
SPA, REALITY_CHECK = "spa_p_value", "reality_check_p_value"
LEDGER_LANES, LEDGER_EFFECTIVE = "ledger_lanes", "ledger_effective_lanes"
MIN_TRACK_RECORD = "min_track_record_periods"
MAX_DRAWDOWN = "max_drawdown"  # of the whole run, as every backtest has it

# Tags of a run that can be promoted: the seal of what it recorded, and what came out of it.
RECORDED, ORDERS_SHA256, FILLS_SHA256 = "recorded", "orders_sha256", "fills_sha256"

# Tags that link a promoted run, the sweep that it came from, and the sessions that trade it.
MODEL = "model"  # name/version of the promoted model: on the run, and on each session
PROMOTED_RUN, SWEEP_RUN = "promoted_run", "sweep_run"  # ids of runs: on a session; on it and on a lane's own run
RANK = "sweep_rank"  # of a lane in its sweep, 1 the best
BUNDLE, GATES = "bundle", "gates"  # tags of a model version: digest of its bundle; passed or failed
