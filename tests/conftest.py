"""What every test stands on, however the run was started."""

from __future__ import annotations

import signal

from telemetry import switches


def pytest_configure() -> None:
    """Ctrl-C means something: a shell's background jobs begin with it ignored.

    What is ignored stays so in every process that a test starts, and those that
    are to be interrupted would never notice.
    """
    switches.tests_may_send = True  # these tests try what others are kept from
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
