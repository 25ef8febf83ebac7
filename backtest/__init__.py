"""History's seat of the tandem: the simulated venue, the compiled loop, and what a run gives back."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtest.check import check_strategy
    from backtest.run import backtest, prepare

__all__ = ["backtest", "check_strategy", "prepare"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that a subpackage can be imported without the whole."""
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("backtest.check" if name == "check_strategy" else "backtest.run"), name)
    raise AttributeError(f"module backtest has no attribute {name}")
