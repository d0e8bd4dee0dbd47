"""The small command-line program that `demo` runs: a session with tool calls.

    python demo_program.py RUN CALLS

Each call is recorded, and its number is printed only once it is: the numbers say what
was acknowledged, also if the program is killed.
"""

from __future__ import annotations

import signal
import sys
import time

import telemetry


# A run that is to be killed in its middle must have one: it takes its time.
_CALLS_AT_ONCE = 100
_PAUSE_S = 0.001


def main(run: str, calls: int) -> None:
    client = telemetry.configure("demo", version="1.0", flusher_lifetime_s=30)
    client.record_session_start("demo-agent", f"session-{run}")
    for number in range(calls):
        event = telemetry.ToolEvent(
            action="call",
            tool_name=f"{run}-{number}",
            session_id=f"session-{run}",
            agent_name="demo-agent",
            duration_ms=number % 7,
            success=True,
        )
        if telemetry.track(event):
            print(number, flush=True)
        if calls > _CALLS_AT_ONCE:
            time.sleep(_PAUSE_S)
    client.record_session_end()


if __name__ == "__main__":
    # Ctrl-C is for the one who tells the story; this one just ends.
    for number in {signal.SIGINT, getattr(signal, "SIGPIPE", signal.SIGINT)}:
        signal.signal(number, signal.SIG_DFL)
    main(sys.argv[1], int(sys.argv[2]))
