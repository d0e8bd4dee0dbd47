"""What may be recorded of a command line, whoever read it."""

from __future__ import annotations

from telemetry.commands import NAMES_ONLY, Flag, Reading, permitted, typed
from telemetry.config import CommandPolicy, Config
from telemetry.integrations.recording import Outcome, Settings, Stopwatch
from tests.support.replay import SEED_POLICY


def test_without_a_parser_only_what_can_be_a_flags_name_is_one() -> None:
    """Everything else on a command line was written by its user."""
    for words, flags in (
        ([], []),
        (["a secret prompt", "agent.yaml"], []),
        (["--model", "gpt", "--api-key=abc", "-v"], ["--model", "--api-key", "-v"]),
        (["-osecret", "-5", "-", "--=x", "--1", "-é", "--überraschung"], []),
        (["--a secret", "--x/y", "--" + "a" * 60], []),
        (["--dry_run", "--", "--secret"], ["--dry_run"]),
        (["--x"] * 2000, ["--x"]),
        (
            ["--no-http2-push", "--utf8", "--noEmit"],
            ["--no-http2-push", "--utf8", "--noEmit"],
        ),
        (["--please-delete-all-my-files", "--a1b2c3d4e5", "--x-", "---x", "--"], []),
    ):
        info = permitted(typed(words), "run", NAMES_ONLY)
        assert (info.action, info.args, info.flags) == ("run", [], flags), words


def test_a_policy_names_what_is_recorded_besides() -> None:
    """The original's policy: three commands, and six flags of theirs."""
    words = ["agent.yaml", "now", "--model", "gpt", "--secret", "--yolo"]
    info = permitted(typed(words), "run", SEED_POLICY)
    assert (info.args, info.flags) == (["agent.yaml", "now"], ["--model", "--yolo"])
    info = permitted(typed(["x", "--help"]), "eval", SEED_POLICY)
    assert (info.args, info.flags) == ([], ["--help"])
    listed = CommandPolicy(flags=("--yolo",))
    assert permitted(typed(words), "run", listed).flags == ["--yolo"]
    alone = CommandPolicy(arguments_of="run")  # type: ignore[arg-type]
    assert permitted(typed(["x"]), "run", alone).args == ["x"]
    assert permitted(typed(["x"]), "ru", alone).args == []


class Keeping:
    """A client as far as recordings know it."""

    def __init__(self, **settings: object) -> None:
        self.config = Config(**{"app": "frob", **settings})  # type: ignore[arg-type]
        self.events: list[object] = []

    def track(self, event: object) -> bool:
        self.events.append(event)
        return True


def test_the_apps_name_stands_for_a_program_without_a_sub_command() -> None:
    """A script's file may be called anything by its user."""
    root = Reading(program="declared", arguments=("x",), flags=(Flag("--a", True),))
    for reading, settings, action in (
        (root, {}, "frob"),
        (Reading(), {}, "frob"),
        (Reading(path=("up", "now")), {}, "up now"),
        (root, {"app": "telemetry"}, "declared"),
        (Reading(), {"app": "telemetry"}, "telemetry"),
    ):
        client = Keeping(**settings)
        made = Settings(client=client, signals=False)
        Stopwatch(made, lambda read=reading: read, str).record(Outcome())
        assert client.events[0].action == action, reading


def test_a_clients_policy_holds_where_a_wrapper_has_none() -> None:
    """It is said once, for `track_command` and for every framework."""
    reading = Reading(path=("up",), arguments=("x",), flags=(Flag("--a", True),))
    client = Keeping(policy=CommandPolicy(arguments_of=("up",), flags=()))
    for policy in (None, NAMES_ONLY):
        settings = Settings(client=client, policy=policy, signals=False)
        Stopwatch(settings, lambda: reading, str).record(Outcome())
    said = [(event.args, event.flags) for event in client.events]
    assert said == [(["x"], []), ([], ["--a"])]
