"""Calendar words for a time in ns UTC, in integer arithmetic that compiles.

The kernel has no clock: the time is always that of an event.
"""

DAY_NS = 86_400_000_000_000


def day_of(ts: int) -> int:
    """Days since 1970-01-01.

    >>> day_of(86_400_000_000_000)
    1
    """
    return ts // DAY_NS


def weekday_of(ts: int) -> int:
    """0 is Monday, 6 is Sunday.

    >>> weekday_of(0)  # 1970-01-01 was a Thursday
    3
    """
    return (ts // DAY_NS + 3) % 7


def minute_of(ts: int) -> int:
    """Minute of the day, 0 to 1439.

    >>> minute_of(3_660_000_000_000)
    61
    """
    return ts % DAY_NS // 60_000_000_000


def month_of(ts: int) -> int:
    """Months since January of year 0: `month_of(ts) % 12` is 0 in January, `// 12` is the year.

    Years are counted from March, so that the leap day is the last of a year (the days-to-date rule of the proleptic
    Gregorian calendar).

    >>> divmod(month_of(951_782_400_000_000_000), 12)  # 2000-02-29
    (2000, 1)
    """
    days = ts // DAY_NS + 719_468  # since 0000-03-01
    era = days // 146_097
    of_era = days - era * 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    return (year + era * 400) * 12 + (5 * of_year + 2) // 153 + 2
