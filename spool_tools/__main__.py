"""`python -m spool_tools`: the same as the installed `spool-tools`."""

from __future__ import annotations

import sys


if __name__ == "__main__":
    try:
        from spool_tools.cli import main

        code = main()
    except KeyboardInterrupt:
        code = 130  # so early that nothing was begun
    sys.exit(code)
