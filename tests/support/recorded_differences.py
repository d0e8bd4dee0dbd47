"""The recorded cases in which the Go original is wrong, and what is right instead.

A case that is not named here must leave exactly as it was recorded.
"""

from __future__ import annotations

from typing import Any

import msgspec


# What is wrong about the original, in the words of the notes beside the recording.
SESSION_END = (
    "a session end always says `cost: 0, error_count: 0`; tool errors flip "
    "`is_success` but are missing from `error`"
)
INTEGERS = "integers beyond 2^53 are rounded, int64 sums wrap"
NOT_FINITE = "NaN or infinity as a cost drops the event"
OFF_WORDS = "only `false` turns it off, with nothing around it"
TEST_FLAG = "`enabled/test_flag_disables`: off under `go test`"
NO_HOME = "without `HOME` the id lives in the shared temporary directory"
UNWRITABLE = "a home that cannot be written: the event is sent anyway"
COLLISION = "of two keys that become one, one wins by chance of order"
DEBUG = "debug mode sends to another endpoint with another key"

ON_THE_WIRE = {"os": "linux", "os_language": "en-US", "version": "1.2.3"}
ITS_ID = "11111111-2222-4333-8444-555555555555"
TOKENS = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}


class Different(msgspec.Struct, frozen=True):
    """Where we differ from the recording, and what is right.

    row: what is wrong about the original; empty: nothing is
    properties: those of ours that differ, by the number of the event
    added: events of ours that the original lost, by their number
    silent: nothing at all leaves
    header: the value of the key's header where only that differs
    """

    row: str = ""
    properties: dict[int, dict[str, Any]] = {}
    added: dict[int, dict[str, Any]] = {}
    silent: bool = False
    header: str = ""


def event_of(kind: str, **properties: Any) -> dict[str, Any]:
    return {
        "event": kind,
        "event_timestamp": 0,
        "source": "cagent",
        "properties": {**properties, **ON_THE_WIRE, "user_uuid": ITS_ID},
    }


def usage(**properties: Any) -> dict[str, Any]:
    labels = {"action": "usage", "agent_name": "root", "session_id": "sess-1"}
    return event_of("token", **labels, model_name="gpt-4", **TOKENS, **properties)


DIFFERENT = {
    "record/session_full": Different(SESSION_END, {5: {"cost": 0.75}}),
    "record/session_end_drops_error_count": Different(
        SESSION_END, {1: {"error_count": 2}}
    ),
    "record/session_tool_error_and_record_error": Different(
        SESSION_END, {2: {"error_count": 2, "error": ["tool failed", "agent failed"]}}
    ),
    "record/record_error_weird": Different(SESSION_END, {1: {"error_count": 2}}),
    "record/debug_session": Different(
        SESSION_END, {3: {"cost": 0.5, "error_count": 1, "error": ["x"]}}
    ),
    "context/with_client": Different(SESSION_END, {3: {"cost": 0.1, "error_count": 1}}),
    "record/token_overflow_sum": Different(
        INTEGERS,
        {
            1: {"input_tokens": 2**63 - 1, "total_tokens": 2**63},
            3: {"input_tokens": 2**63, "total_tokens": 2**63 + 1},
        },
    ),
    "record/token_nan_cost": Different(
        NOT_FINITE, {3: {"cost": None}}, added={1: usage(cost=None)}
    ),
    "numbers/cost_NaN": Different(NOT_FINITE, added={0: usage(cost=None)}),
    "numbers/cost_-Infinity": Different(NOT_FINITE, added={0: usage(cost=None)}),
    "numbers/session_end_cost_Infinity": Different(
        NOT_FINITE,
        added={
            0: event_of(
                "session",
                action="end",
                agent_name="root",
                cost=None,
                duration_ms=1000,
                error=None,
                error_count=0,
                input_tokens=100,
                is_success=True,
                output_tokens=200,
                session_id="sess-1",
                tool_calls=5,
                total_tokens=300,
            )
        },
    ),
    **{
        f"numbers/int64_{number}": Different(INTEGERS, {0: {"duration_ms": number}})
        for number in (2**53 + 1, 2**62, -(2**63), 123456789012345678)
    },
    **{
        f"numbers/tokens_{number}": Different(
            INTEGERS, {0: {"input_tokens": number, "total_tokens": number}}
        )
        for number in (
            2**53 + 3,
            10**18 + 1,
            2**63 - 1,
            -(2**53) - 1,
            9223372036854774784,
        )
    },
    "enabled/0": Different(OFF_WORDS, silent=True),
    "enabled/FALSE": Different(OFF_WORDS, silent=True),
    "enabled/f": Different(OFF_WORDS, silent=True),
    "enabled/no": Different(OFF_WORDS, silent=True),
    "enabled/space_false": Different(OFF_WORDS, silent=True),
    "enabled/test_flag_disables": Different(
        TEST_FLAG,
        added={
            0: {
                **event_of("command", action="run", args=["agent.yaml"]),
                "properties": {
                    "action": "run",
                    "args": ["agent.yaml"],
                    "is_success": True,
                    **ON_THE_WIRE,
                    "version": "unknown",
                    "user_uuid": "a new one",
                },
            }
        },
    ),
    "tags/invalid_keys_collide": Different(COLLISION, {0: {"\ufffd": "2"}}),
    "global/track_command_auto_init_default_endpoint_debug": Different(
        DEBUG, header="a-key"
    ),
    "uuid/home_unset": Different(NO_HOME, silent=True),
    "uuid/config_dir_is_a_file": Different(UNWRITABLE, silent=True),
}
