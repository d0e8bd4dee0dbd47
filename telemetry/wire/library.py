"""Loads urllib3, even if one of its optional modules is broken.

urllib3 goes without a brotli that is missing. One whose native library is gone raises
OSError instead of ImportError, and would end each flush.
"""

from __future__ import annotations

import importlib
import sys


# What urllib3 loads if it is installed. Nothing that we send or read needs it.
_OPTIONAL = ("brotlicffi", "brotli", "zstandard", "backports.zstd", "compression.zstd")


def _load() -> None:
    if "urllib3" not in sys.modules:
        # An import that failed leaves parts that the next one would not put into place.
        for name in [each for each in sys.modules if each.startswith("urllib3.")]:
            del sys.modules[name]
    for name in ("", ".connection", ".exceptions", ".util"):
        importlib.import_module("urllib3" + name)


def _is_broken(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False  # it is missing, which urllib3 expects
    except Exception:  # noqa: BLE001 - whatever a module of others raises
        return True
    return False


try:
    _load()
except ImportError:
    raise
except Exception:  # noqa: BLE001 - as above
    broken = [name for name in _OPTIONAL if _is_broken(name)]
    # As if they were missing. Nobody else can load them either.
    sys.modules.update(dict.fromkeys(broken))  # type: ignore[arg-type]
    try:
        _load()
    finally:
        for name in broken:
            sys.modules.pop(name, None)

import urllib3  # noqa: E402
import urllib3.connection  # noqa: E402
import urllib3.exceptions  # noqa: E402
import urllib3.util  # noqa: E402


__all__ = ["urllib3"]
