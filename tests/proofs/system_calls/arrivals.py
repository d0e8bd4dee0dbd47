"""Whether the events that arrived are those that were acknowledged, and no others."""

from __future__ import annotations

import msgspec

from telemetry.paths import Home
from tests.proofs.system_calls.aftermath import answers_of
from tests.proofs.system_calls.scenes import FIRST, POISON, Collector, Scene, held_in
from tests.proofs.system_calls.tracing import Ran


class _Properties(msgspec.Struct):
    number: int


class _Event(msgspec.Struct):
    properties: _Properties


def events_problems(
    scene: Scene, collector: Collector, home: Home, ran: Ran, after: range
) -> list[str]:
    """What is lost, altered, spurious or twice once all is flushed.

    `after` are the numbers of events that were recorded in peace after the run.
    """
    found = [f"altered: body under key {key}" for key in collector.changed]
    found += [f"altered: two versions of {each}" for each in collector.differing()]
    arrived = collector.arrived()
    found += _of_the_held(scene, arrived, home)
    numbers: dict[int, list[str]] = {}
    for event_id in arrived.keys() - scene.held.keys():
        numbers.setdefault(_number_of(arrived[event_id]), []).append(event_id)
    answers = answers_of(ran)
    # Killed in between, an event stands there that nobody was told of.
    unheard = max(answers, default=FIRST - 1) + 1
    answers.update(dict.fromkeys(after, True))
    is_power = scene.told.get("durability") == "power"
    for number, ids in numbers.items():
        is_untold = number == unheard and ran.status < 0
        if number not in answers and not is_untold:
            found.append(f"spurious: {number}")
        # A sync that failed says nothing about whether the bytes are there.
        if not answers.get(number, True) and not is_power:
            found.append(f"spurious: {number} was refused and has arrived")
        if len(ids) > 1:
            found.append(f"twice: {number} under {len(ids)} ids")
    found += [
        f"lost: acknowledged {number}"
        for number, answer in answers.items()
        if answer and number not in numbers
    ]
    if scene.name == "record-off" and (numbers or any(answers.values())):
        found.append("spurious: recorded against the user's choice")
    return found


def _of_the_held(scene: Scene, arrived: dict[str, bytes], home: Home) -> list[str]:
    """What the home held before has arrived, or is a dead letter, byte for byte."""
    found = []
    dead = {
        event_id: event
        for event_id, event in held_in(home).items()
        if POISON.encode() in event
    }
    is_purge = scene.program == "purge"
    for event_id, event in scene.held.items():
        there = arrived.get(event_id) or dead.get(event_id)
        if there is None and event_id not in scene.accepted and not is_purge:
            found.append(f"lost: held {event[:60]!r}")
        elif there is not None and there != event:
            found.append(f"altered: {event!r} is {there!r}")
    return found


def _number_of(event: bytes) -> int:
    """The how manyth event of its program this is."""
    return msgspec.json.decode(event, type=_Event).properties.number
