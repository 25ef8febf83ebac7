"""The functions of `math` that have a domain, with Python's errors: what is wrong uncompiled is wrong compiled.

Compiled as they stand they would return nan or inf where Python raises, and the uncompiled oracle would differ.
Handlers that name `math.sqrt` get `sqrt` of this file in its place (compile.py).
"""

import math


def sqrt(x: float) -> float:
    """Square root; ValueError below 0."""
    if x < 0.0:
        raise ValueError("math domain error")
    return math.sqrt(x)


def log(x: float) -> float:
    """Natural logarithm; ValueError at and below 0."""
    if x <= 0.0:
        raise ValueError("math domain error")
    return math.log(x)


def log2(x: float) -> float:
    """Logarithm to base 2; ValueError at and below 0."""
    if x <= 0.0:
        raise ValueError("math domain error")
    return math.log2(x)


def log10(x: float) -> float:
    """Logarithm to base 10; ValueError at and below 0."""
    if x <= 0.0:
        raise ValueError("math domain error")
    return math.log10(x)


def log1p(x: float) -> float:
    """Natural logarithm of 1 + x; ValueError at and below -1."""
    if x <= -1.0:
        raise ValueError("math domain error")
    return math.log1p(x)


def exp(x: float) -> float:
    """e to the power x; OverflowError beyond the largest float."""
    y = math.exp(x)
    if math.isinf(y) and not math.isinf(x):
        raise OverflowError("math range error")
    return y


def expm1(x: float) -> float:
    """exp(x) - 1; OverflowError beyond the largest float."""
    y = math.expm1(x)
    if math.isinf(y) and not math.isinf(x):
        raise OverflowError("math range error")
    return y


def acos(x: float) -> float:
    """Arc cosine; ValueError outside [-1, 1]."""
    if abs(x) > 1.0:
        raise ValueError("math domain error")
    return math.acos(x)


def asin(x: float) -> float:
    """Arc sine; ValueError outside [-1, 1]."""
    if abs(x) > 1.0:
        raise ValueError("math domain error")
    return math.asin(x)


def atanh(x: float) -> float:
    """Area hyperbolic tangent; ValueError outside (-1, 1)."""
    if abs(x) >= 1.0:
        raise ValueError("math domain error")
    return math.atanh(x)


def fmod(x: float, y: float) -> float:
    """Remainder with the sign of x; ValueError for y = 0 or an infinite x."""
    if (y == 0.0 and not math.isnan(x)) or (math.isinf(x) and not math.isnan(y)):
        raise ValueError("math domain error")
    return math.fmod(x, y)


def floor(x: float) -> int:
    """The whole number below; ValueError or OverflowError for nan or inf."""
    if math.isnan(x):
        raise ValueError("cannot convert float NaN to integer")
    if math.isinf(x):
        raise OverflowError("cannot convert float infinity to integer")
    return math.floor(x)


def ceil(x: float) -> int:
    """The whole number above; ValueError or OverflowError for nan or inf."""
    if math.isnan(x):
        raise ValueError("cannot convert float NaN to integer")
    if math.isinf(x):
        raise OverflowError("cannot convert float infinity to integer")
    return math.ceil(x)


# The identity of a function of math -> what stands in its place.
CHECKED = {id(getattr(math, f.__name__)): f for f in (
    sqrt, log, log2, log10, log1p, exp, expm1, acos, asin, atanh, fmod, floor, ceil,
)}  # fmt: skip
