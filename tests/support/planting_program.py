"""A program that hands canaries to every function of the public interface.

    python -m tests.support.planting_program STEP … [identity]

Prints what became of its events as JSON. With `identity` the scrubber changes nothing, which is
how the search proves that it would find them.
"""

from __future__ import annotations

# ruff: noqa: ARG001 - a command's function takes what its options are called
import argparse
import dataclasses
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import click
import msgspec
import typer

import telemetry
from telemetry.integrations import argparse as with_argparse
from telemetry.integrations import click as with_click
from telemetry.integrations import typer as with_typer
from telemetry.privacy import Scrubber
from tests.support.canaries import OWN_KEY, OWN_KEY_WRITTEN, SURROUNDINGS, Canary
from tests.support.planting import KEPT, PLANTED, PROMPTS, Dresser


# One in so many is refused by the server, which makes dead letters.
DOOMED_EVERY = 8
DOOMED = "doomed"


class Inner(msgspec.Struct):
    note: str
    names: dict[str, str]


class Theirs(msgspec.Struct):
    """A payload of a program's own, with strings in every place."""

    text: str
    items: list[str]
    pair: tuple[str, str]
    inner: Inner
    raw: bytes
    error: dict[str, list[str]]
    several: frozenset[str]
    nothing: str | None = None


@dataclasses.dataclass
class Plain:
    text: str
    deep: list[dict[str, str]]


class Told(msgspec.Struct, frozen=True):
    """An event with a payload of any kind; its name is kept on purpose."""

    payload: Any
    name: Any = KEPT

    def get_event_type(self) -> Any:
        if isinstance(self.name, BaseException):
            raise self.name
        return self.name

    def to_structured_properties(self) -> Any:
        return self.payload


class Text(str):
    __slots__ = ()


class BadError(Exception):
    """What went wrong, and why."""


def caused(message: str, cause: str) -> BaseException:
    """An exception with a message, a cause, a note and a context."""
    error = BadError(message)
    error.__cause__ = error.__context__ = ValueError(cause)
    error.__notes__ = [cause]  # type: ignore[attr-defined]
    return error


def events(canary: Canary, dress: Callable[[], str]) -> Iterator[Any]:
    """Every kind of event, with the canary in every string where it is private."""

    def name() -> str:
        return "word" if canary.free else dress()

    yield telemetry.CommandEvent(
        action=name(),
        args=[dress(), dress()],
        flags=[name()],
        error=dress(),
        success=False,
        duration_ms=1,
    )
    yield telemetry.ToolEvent(name(), name(), name(), name(), error=dress())
    yield telemetry.TokenEvent(name(), name(), name(), name())
    yield telemetry.SessionStartEvent(name(), name(), name())
    yield telemetry.SessionEndEvent(
        name(), name(), name(), error=[dress(), Text(dress())]
    )
    yield Told(
        Theirs(
            text=name(),
            items=[name(), Text(name())],
            pair=(name(), name()),
            inner=Inner(note=name(), names={name(): name()}),
            raw=name().encode(),
            error={dress(): [dress()]},
            several=frozenset([name()]),
            nothing=name(),
        )
    )
    yield Told(Plain(text=name(), deep=[{name(): name()}]))
    yield Told({name(): name(), "error": dress(), "args": [{dress(): dress()}]})


def by_methods(
    client: telemetry.Client, canary: Canary, dress: Callable[[], str]
) -> None:
    """The same by the methods that a program calls."""

    def name() -> str:
        return "word" if canary.free else dress()

    client.record_session_start(name(), name())
    for error in (
        caused(dress(), dress()),
        dress(),
        OSError(2, dress(), name()),
        KeyError(dress()),
    ):
        client.record_tool_call(
            name(), name(), name(), timedelta(milliseconds=1), error
        )
    client.record_token_usage(name(), 1, 2, 0.5)
    client.record_error(dress())
    client.record_session_end()
    telemetry.track_command(name(), [dress()])


def plant(client: telemetry.Client) -> Counter[str]:
    """All canaries, by all ways in; the doomed ones side by side at the end."""
    outcome: Counter[str] = Counter()
    dresser = Dresser()
    for canary in PLANTED:
        tag = "word" if canary.free else dresser.dress(canary)
        # What divides tags, or a tag from its name, is in none of them.
        if not set("\0,") & set(tag):
            name = "name" if "=" in tag else tag
            os.environ["TELEMETRY_TAGS"] = f"note={tag},{name}=note"
        for event in events(canary, lambda c=canary: dresser.dress(c)):
            outcome[f"recorded {client.track(event)}"] += 1
        by_methods(client, canary, lambda c=canary: dresser.dress(c))
    secret = next(c.traces[0] for c in PLANTED if c.name == "password={}")
    os.environ["TELEMETRY_TAGS"] = f"api_key={secret},password={secret}"
    for option in ("--password", "-token", "--api-key"):
        client.track(telemetry.CommandEvent(action="run", args=["x", option, secret]))
    os.environ["TELEMETRY_TAGS"] = ""
    for canary in PLANTED[::DOOMED_EVERY]:
        client.track(Told({"action": DOOMED, "error": dresser.dress(canary)}))
    return outcome


def refuse(client: telemetry.Client) -> Counter[str]:
    """Events that cannot be recorded, each for another reason."""
    outcome: Counter[str] = Counter()
    dresser = Dresser()
    for canary in PLANTED:
        text = dresser.dress(canary)
        bytes_max = telemetry.Config(app="app").event_bytes_max
        huge = f"{text} " * (bytes_max // len(text) + 1)
        for event in (
            telemetry.ToolEvent(action="call", error=huge),
            telemetry.ToolEvent(action=7, error=text),  # type: ignore[arg-type]
            telemetry.CommandEvent(action="run", args=text),  # type: ignore[arg-type]
            Told({"a": text}, name=[text]),
            Told({"a": text}, name=BadError(text)),
            Told({(text, 1): text}),
            Told(text),
            Told({"a": BadError(text)}),
        ):
            outcome[f"recorded {client.track(event)}"] += 1
        client.record_tool_call(text, text, text, text)  # type: ignore[arg-type]
        client.record_token_usage(text, text, 1, 1)  # type: ignore[arg-type]
        client.record_token_usage(text, 1, 1, text)  # type: ignore[arg-type]
        if not canary.free:
            client.record_token_usage(text, 1, 1, float("inf"))
    return outcome


def own_key(client: telemetry.Client) -> Counter[str]:
    """The program's own key in every spelling, where it may turn up; and sent off."""
    outcome: Counter[str] = Counter()
    for turn, (name, write) in enumerate(OWN_KEY_WRITTEN.items()):
        text = SURROUNDINGS[turn % len(SURROUNDINGS)].format(write(OWN_KEY))
        os.environ["TELEMETRY_TAGS"] = f"note={text},{text}=note".replace("\0", "")
        client.version = text
        for event in events(Canary(name, text, ()), lambda text=text: text):
            outcome[f"recorded {client.track(event)}"] += 1
        by_methods(client, Canary(name, text, ()), lambda text=text: text)
        client.track(Told({name: [*text.encode()], text: text}, name=text))
        client.track(Told({"a": BadError(text)}))
        client.track(telemetry.ToolEvent(action=text, error=7))  # type: ignore[arg-type]
    os.environ["TELEMETRY_TAGS"] = ""
    for _ in range(int(os.environ["PLANTING_FLUSHES"])):
        outcome[client.flush(timeout_s=20).stopped] += 1
    return outcome


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="program", exit_on_error=False)
    made.add_argument("--note")
    run = made.add_subparsers().add_parser("run")
    run.add_argument("words", nargs="*")
    run.add_argument("-m", "--message")
    return made


def click_program() -> click.Command:
    @click.group()
    @click.option("--note")
    def program(note: str | None) -> None:
        pass

    @program.command()
    @click.argument("words", nargs=-1)
    @click.option("-m", "--message")
    def run(words: tuple[str, ...], message: str | None) -> None:
        if "fail" in words:
            raise click.UsageError(" ".join(words))

    return program


def typer_app() -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def run(words: list[str], message: str = "") -> None:
        if "fail" in words:
            raise ValueError(words)

    @app.command()
    def stop() -> None:
        pass

    return app


def command_lines(prompt: str) -> Iterator[list[str]]:
    """A prompt wherever a command line can have one; right and wrong usage."""
    yield ["run", prompt]
    yield ["run", "--", prompt]
    yield ["run", "fail", prompt]
    yield ["run", "x", "--message", prompt]
    yield ["run", f"--message={prompt}", "x"]
    yield ["run", f"-m{prompt}", "x"]
    yield ["--note", prompt, "run", "x"]
    yield [prompt]
    yield [f"--{prompt}"]
    yield ["run", f"--{prompt}", prompt]


def quietly(call: Callable[[], Any]) -> None:
    """What a program does with a command line is its own affair."""
    try:
        call()
    except (Exception, SystemExit):
        pass


def commands(client: telemetry.Client) -> Counter[str]:
    """Prompts in command lines, through each integration and `build_command_info`."""
    outcome: Counter[str] = Counter()
    in_click = with_click.instrument(click_program(), client=client)
    in_typer = with_typer.instrument(typer_app(), client=client)

    def in_argparse(line: list[str]) -> None:
        with with_argparse.command(parser(), line, client=client):
            given = parser().parse_args(line)
            raise ValueError(given)

    for prompt in PROMPTS:
        for line in command_lines(prompt):
            quietly(lambda line=line: in_argparse(line))
            quietly(lambda line=line: in_click.main(line, standalone_mode=True))
            quietly(lambda line=line: in_typer(line))
            for command in (parser(), click_program(), typer_app()):
                info = telemetry.build_command_info(command, line, "program")
                event = telemetry.CommandEvent(info.action, info.args, flags=info.flags)
                outcome[f"recorded {client.track(event)}"] += 1
    return outcome


def launch(client: telemetry.Client) -> Counter[str]:
    """What a program does whose events have to be sent: it is run with a prompt."""
    try:
        with with_argparse.command(parser(), client=client):
            parser().parse_known_args()
    except (SystemExit, argparse.ArgumentError):
        pass
    return Counter()


def unscrubbed() -> None:
    """From now on nothing is scrubbed."""
    for method in ("text", "free_text", "behind_options"):
        setattr(Scrubber, method, lambda _, text: text)
    Scrubber.names_secret = lambda *_: False  # type: ignore[method-assign]


STEPS = {
    "plant": plant,
    "refuse": refuse,
    "commands": commands,
    "launch": launch,
    "own_key": own_key,
}

if __name__ == "__main__":
    # Not standard error: what a framework says there is the program's own.
    logging.basicConfig(level=logging.DEBUG, filename=os.environ["PLANTING_LOG"])
    step, *arguments = sys.argv[1:]
    if arguments[:1] == ["identity"]:
        unscrubbed()
    sys.argv[1:] = arguments
    settings = json.loads(os.environ.get("PLANTING_SETTINGS", "{}"))
    with telemetry.configure("app", debug=True, **settings) as configured:
        print(json.dumps(STEPS[step](configured)))
