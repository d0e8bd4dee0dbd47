"""How many examples a property is tried with."""

from __future__ import annotations

import os


# Set by `proofs/test_tried_whole.py`, which tries each property with all of them.
VARIABLE = "TESTS_TRY_ALL_EXAMPLES"


def examples(count: int) -> int:
    """A sixth of `count` every day, chosen anew at each run."""
    return count if VARIABLE in os.environ else count // 6
