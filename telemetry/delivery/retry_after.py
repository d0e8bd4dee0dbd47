"""How long a server asks to be left alone (RFC 9110 §10.2.3). Pure.

Retry-After is seconds, or a date. A date is compared with the reply's own Date,
so that a wrong clock here does not matter; only a reply without one is compared
with `now`. Dates are read by hand: `strptime` knows months by the host's locale.

It never raises, and never answers more than a day, or less than nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone


# A server that asks for more than a day has a clock or a unit wrong.
RETRY_AFTER_MAX_S = 24 * 3600.0

# More digits than this are above the bound, and int() refuses very many.
_DIGITS_MAX = 9

_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_MONTH = rf"(?P<month>{_MONTHS})"
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
# The three forms of an HTTP date (RFC 9110 §5.6.7): Sun, 06 Nov 1994 08:49:37 GMT;
# Sunday, 06-Nov-94 08:49:37 GMT; Sun Nov  6 08:49:37 1994.
_DATES = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"[A-Z][a-z]{{2}}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_CLOCK} GMT",
        rf"[A-Z][a-z]+, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_CLOCK} GMT",
        rf"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[ \d]\d) {_CLOCK} (?P<year>\d{{4}})",
    )
)


def retry_after_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """The seconds a reply asks for, 0 to 24 h; None if nothing usable is there.

    `headers` has names in lower case, `now` is seconds since the epoch.
    """
    value = headers.get("retry-after", "").strip(" \t")
    if re.fullmatch("[0-9]+", value):
        digits = value.lstrip("0") or "0"
        asked_s = float(digits) if len(digits) <= _DIGITS_MAX else RETRY_AFTER_MAX_S
        return min(asked_s, RETRY_AFTER_MAX_S)
    until = _http_date(value, now)
    if until is None:
        return None
    date = _http_date(headers.get("date", "").strip(" \t"), now)
    asked_s = until - (now if date is None else date)
    return min(asked_s, RETRY_AFTER_MAX_S) if asked_s > 0 else 0.0


def _http_date(text: str, now: float) -> float | None:
    """Seconds since the epoch of an HTTP date; None if it is none."""
    found = next((match for form in _DATES if (match := form.fullmatch(text))), None)
    if found is None:
        return None
    year = int(found["year"])
    try:
        if len(found["year"]) == 2:
            year = _full_year(year, now)
        moment = datetime(
            year,
            _MONTHS.index(found["month"]) // 4 + 1,
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            # Python's calendar has no leap seconds; the one before is near enough.
            min(int(found["second"]), 59),
            tzinfo=timezone.utc,
        )
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None


def _full_year(two_digits: int, now: float) -> int:
    """The year meant by two digits: not more than 50 ahead (RFC 9110 §5.6.7)."""
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    this_year = (epoch + timedelta(seconds=now)).year
    year = this_year - this_year % 100 + two_digits
    return year - 100 if year > this_year + 50 else year
