"""History's seat of the tandem: the simulated venue, the compiled loop, and what a run gives back."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtest.run import backtest, prepare

__all__ = ["backtest", "prepare"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that a subpackage can be imported without the whole."""
    if name in __all__:
        from backtest import run

        return getattr(run, name)
    raise AttributeError(f"module backtest has no attribute {name}")
