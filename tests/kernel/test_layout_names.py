"""Names of fields that the engine or numpy use already are told, instead of breaking something else later."""

import pytest

from engine.errors import StrategyError
from engine.kernel.layout import Record
from engine.kernel.strategy import Strategy

USED = ["at", "new", "fields", "capacity", "asdict", "values", "handlers", "validate", "mean", "size"]


@pytest.mark.parametrize("name", USED)
def test_used_names(name: str) -> None:
    base = Strategy if name in ("values", "handlers", "validate") else Record
    with pytest.raises(StrategyError, match=f"already use.* the name `{name}`; rename the field"):
        type("Own", (base,), {"__annotations__": {name: int}, "__module__": __name__})


def test_a_subclass_may_repeat_a_field() -> None:
    first = type("First", (Record,), {"__annotations__": {"level": float}, "__module__": __name__})
    second = type("Second", (first,), {"__annotations__": {"level": float, "more": int}, "__module__": __name__})
    assert list(second.fields) == ["level", "more"]
