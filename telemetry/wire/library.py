"""urllib3, loaded even where an optional module of its own is broken; who needs it is here.

It goes without a brotli that is missing. One whose native library is gone raises OSError
instead of ImportError, and would stop every flush.
"""

from __future__ import annotations

import sys


# What urllib3 loads if it can; none of it is needed for what we send and read.
_OPTIONAL = ("brotlicffi", "brotli", "zstandard", "backports.zstd", "compression.zstd")

try:
    import urllib3
    import urllib3.connection
    import urllib3.exceptions
    import urllib3.util
except ImportError:
    raise
except Exception:  # noqa: BLE001 - whatever a module of others raises
    # As if they were not installed; the program may still load them itself.
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        import urllib3
        import urllib3.connection
        import urllib3.exceptions
        import urllib3.util
    finally:
        for name in hidden:
            del sys.modules[name]

__all__ = ["urllib3"]
