"""The values a wheel was built with; empty in a source tree.

`build_hook.py` writes them into `telemetry/_build.py` of the wheel, and only there.
"""

from __future__ import annotations


_VALUES: dict[str, str] = {}
try:
    # The file exists in wheels that were built with values.
    from telemetry._build import VALUES as _VALUES  # type: ignore[import-not-found, no-redef]
except ImportError:
    pass

TELEMETRY_ENABLED = _VALUES.get("enabled", "")
TELEMETRY_ENDPOINT = _VALUES.get("endpoint", "")
TELEMETRY_API_KEY = _VALUES.get("api_key", "")
TELEMETRY_HEADER = _VALUES.get("header", "")


def build_values() -> dict[str, str]:
    """The values by the name of the setting: empty where none was built in."""
    return {
        "enabled": TELEMETRY_ENABLED,
        "endpoint": TELEMETRY_ENDPOINT,
        "api_key": TELEMETRY_API_KEY,
        "header": TELEMETRY_HEADER,
    }
