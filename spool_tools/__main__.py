"""`python -m spool_tools`: the same as the installed `spool-tools`."""

from __future__ import annotations

import sys

from spool_tools.cli import main


if __name__ == "__main__":
    sys.exit(main())
