"""Being forgotten: off, and a server is asked to delete what it has under the old id.

A program that has an address for that names it, `Config(deletion_endpoint=…)`; without
one nothing is sent, and `forget` is an opt-out. The request is an event as all are, in the
program's format, with the program's key:

    {"event": "deletion_request", "event_timestamp": …, "source": …,
     "properties": {"event_id": …, "user_uuid": <the id that was given up>}}

Rules:
- It is kept like an event: in `forgotten-<CRC-32>`, written before the id is removed
  (`opt_out.py`). An answer that accepts it, as answers accept events, removes the file.
  Anything else is waited for under the backoff of the endpoint, without an end.
- Behind the id stands what came of the last try, for `status`, and where it went, for
  `forget`: the ledger that knew is removed. All of it is padded to one length.
- Each try has the same bytes, as long as the program keeps its name. Killed between the
  answer and the removal, the server is asked twice.
- It is posted by a flush, behind the opt-out's removal and under the flush lock: no
  flusher that began before is at work, so no event arrives behind the request. Nothing
  else is sent once telemetry is off.
- DO_NOT_TRACK, TELEMETRY_ENABLED and `enabled=False` hold it back as they hold back
  events; the user's own choice alone does not.
- It goes to the origin of the endpoint: the key belongs nowhere else.
"""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256

import msgspec

from telemetry.config import Config
from telemetry.delivery.opt_out import requests_waiting
from telemetry.errors import ConfigError
from telemetry.files import overwrite, read_small, sync_directory
from telemetry.identity import new_uuid4, parse_id
from telemetry.paths import Home
from telemetry.wire.batch import printable
from telemetry.wire.formats import Format
from telemetry.wire.verdict import Action, Verdict


TYPE_CHECKING = False
if TYPE_CHECKING:
    from telemetry.wire.retry import Poster  # `status` needs no tenacity

EVENT = "deletion_request"
# As often as that within one flush; the rest is the schedule's.
_TRIES = 4
_ANSWER_BYTES_MAX = 400
_NOTE_BYTES = 3000
_FILE_BYTES_MAX = 4096


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What a request has behind its id. Addresses as in `DeliveryState`."""

    said: str = ""
    """What came of the last try; empty: none was made yet."""
    deletion_url: str = ""
    url: str = ""
    header: str = "x-api-key"
    format: str = "records"
    gzip: bool | None = None
    accept_statuses: tuple[int, ...] = ()


def addressed(config: Config) -> Config:
    """The config with the address for deletions in place of the endpoint.

    Raises ConfigError where it names none that may be used.
    """
    if not config.deletion_endpoint:
        raise ConfigError("deletion_endpoint", "none is set; nothing is asked for")
    if problem := config.deletion_problem():
        raise ConfigError("deletion_endpoint", problem)
    return msgspec.structs.replace(config, endpoint=config.deletion_endpoint)


def ask(config: Config, home: Home, poster: Poster, form: Format) -> Verdict | None:
    """Post what waits; each request that is accepted is gone for good on return.

    The verdict that ended it, None where nothing waits. Raises Halted and OSError.
    """
    verdict = None
    for path in requests_waiting(home):
        request = form.request([_event(path, config.wire_source())])
        verdict = poster.post(request)
        if verdict.action is Action.WAIT:
            verdict = poster.post_again(request, verdict, tries=_TRIES)
        if verdict.action is not Action.ACCEPTED or verdict.rejected:
            return verdict
        os.unlink(path)
        sync_directory(home.root)
    return verdict


def note_try(home: Home, note: Note) -> None:
    """Each request that waits has the note on return, if that can be written.

    Killed between the two steps of `overwrite`, a request has another time than before.
    """
    said = printable(note.said, _ANSWER_BYTES_MAX)
    line = msgspec.json.encode(msgspec.structs.replace(note, said=said))
    if len(line) > _NOTE_BYTES:  # a very long address
        line = msgspec.json.encode(Note(said=said))
    for path in requests_waiting(home):
        with suppress(OSError):
            user_uuid, _ = _content(path)
            content = user_uuid + b"\n" + line.ljust(_NOTE_BYTES)
            overwrite(path, content, os.stat(path).st_mtime_ns)


def last_try(home: Home) -> Note:
    """What came of the last try, and where it went; empty where none was made yet."""
    for path in requests_waiting(home):
        with suppress(OSError):
            _, note = _content(path)
            if not note:
                continue  # a newer request: nobody was asked yet
            try:
                return msgspec.json.decode(note, type=Note)
            except msgspec.MsgspecError:
                return Note(
                    said="what came of it cannot be read"
                )  # cut by a power loss
    return Note()


def _content(path: str) -> tuple[bytes, bytes]:
    """The id, and the note."""
    content = read_small(path, _FILE_BYTES_MAX) or b""
    # A power loss may leave the size of a note, and zeros instead of its text.
    user_uuid, _, note = content.rstrip(b"\0").partition(b"\n")
    return user_uuid.partition(b"\0")[0], note


def _event(path: str, source: str) -> bytes:
    user_uuid = parse_id(_content(path)[0])
    # The same for each try: a server that counts by it counts one request.
    event_id = new_uuid4(sha256(f"{EVENT} {user_uuid}".encode()).digest()[:16])
    return msgspec.json.encode(
        {
            "event": EVENT,
            "event_timestamp": os.stat(path).st_mtime_ns // 1_000_000,
            "source": source,
            "properties": {"event_id": event_id, "user_uuid": user_uuid},
        }
    )
