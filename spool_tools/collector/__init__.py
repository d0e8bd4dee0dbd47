"""A collector on this machine: for trials, demonstrations and tests.

collector      `Collector`: a server, an intake and a store, put together
server         HTTP/1.1 on the standard library's ThreadingHTTPServer
intake         what a request is answered, and what is stored of it before
body           content coding and JSON: bytes in, events out; pure
store          one SQLite file, one transaction a request
misbehaviour   which requests meet a fault, and which fault; pure
"""

from __future__ import annotations

from spool_tools.collector.collector import Collector as Collector
from spool_tools.collector.misbehaviour import Faults as Faults
