"""The loopback collector, put together: a server, an intake, a store.

    with Collector(database="collected.db") as collector:
        collector.url                                  # the endpoint to configure
        collector.faults = Faults(status=503, times=2)
        collector.wait(events=500, timeout_s=10)
        collector.events()

How it is stored: `store.py`. What is answered: `intake.py`. What
can go wrong on request: `misbehaviour.py`. HTTP:
`server.py`.

It decides nothing of that itself.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import msgspec

from spool_tools.collector.intake import Gate, Intake
from spool_tools.collector.misbehaviour import Faults, Misbehaviour
from spool_tools.collector.server import Limits, Server
from spool_tools.collector.store import RequestRow, Store, StoreError


if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

# The path of the service that the pipeline's ancestor talked to.
DEFAULT_PATH = "/events/v1/track"


class Collector:
    """One listening socket and one database, from construction to `close`.

    `database` is a file (made where there is none, continued where there is one) or
    `:memory:`. `port` 0 takes a free one. `path` is the only one served (None: any).
    `key` is asked for in the header `header` (None: no key is asked for). `on_request`
    is told every request, from a connection's thread, before its answer leaves (with
    `id` 0: it could not be stored); it must not raise.

    Raises `StoreError` where the database cannot be used, OSError or UnicodeError
    where the address cannot. Reading raises `StoreError` after `close`; the file can then be read with
    `Store`.
    """

    def __init__(
        self,
        database: str = ":memory:",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str | None = None,
        key: str | None = None,
        header: str = "x-api-key",
        faults: Faults | None = None,
        limits: Limits | None = None,
        on_request: Callable[[RequestRow], None] | None = None,
    ) -> None:
        limits = limits or Limits()
        self._path = path
        self._on_request = on_request
        self._changed = threading.Condition()
        self._requests = 0
        self._store = Store(database)
        self._intake = Intake(
            self._store,
            gate=Gate(
                path=path,
                key=None if key is None else key.encode(),
                header=header.lower(),
            ),
            misbehaviour=Misbehaviour(faults or Faults()),
            body_bytes_max=limits.body_bytes_max,
            on_request=self._note,
        )
        try:
            self._events = self._store.count()
            self._server = Server(host, port, take=self._intake.take, limits=limits)
        except (OSError, UnicodeError, StoreError):
            self._store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The endpoint to configure; for a wildcard address, its loopback form."""
        host, port = self._server.address
        # Compared, not bound to.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        named = f"[{host}]" if ":" in host else host
        return f"http://{named}:{port}{self._path or DEFAULT_PATH}"

    @property
    def address(self) -> tuple[str, int]:
        """Host, as a number, and port that it listens on."""
        return self._server.address

    @property
    def faults(self) -> Faults:
        """What goes wrong from the next request on; setting it starts counts anew."""
        return self._intake.misbehaviour.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._intake.misbehaviour = Misbehaviour(faults)

    def wait(
        self, *, events: int = 0, requests: int = 0, timeout_s: float = 10.0
    ) -> bool:
        """Whether, within the time, so many distinct events are stored (those that the
        file held before included) and so many requests were since it began."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._events >= events and self._requests >= requests,
                timeout=timeout_s,
            )

    def count(self) -> int:
        """How many distinct events are stored."""
        return self._store.count()

    def events(self) -> list[dict[str, Any]]:
        """Every event, decoded, in the order of arrival."""
        return [msgspec.json.decode(text) for text in self._store.texts()]

    def texts(self) -> list[bytes]:
        """Every event, byte for byte as it first arrived, in the order of arrival."""
        return self._store.texts()

    def copies(self) -> dict[str, int]:
        """How many times each event arrived, by `event_id`, in the order of arrival."""
        return self._store.copies()

    def requests(self) -> list[RequestRow]:
        """Every request that could be read, in the order in which they were stored."""
        return self._store.requests()

    def close(self) -> None:
        """Lets the answers under way leave, hangs up, closes the file. Twice is fine."""
        self._server.close()
        self._store.close()

    def _note(self, row: RequestRow) -> None:
        with self._changed:
            if row.id:
                self._requests += 1
                self._events += row.accepted
                self._changed.notify_all()
        if self._on_request is not None:
            self._on_request(row)
