"""A collector on this machine: for trials, demonstrations and tests.

collector      `Collector`: what a request is answered, and what is stored of it before
formats        what events a body holds, which can be stored, and how its own receiver
               answers; pure
store          one SQLite file, one transaction a request
misbehaviour   which requests meet a fault, and which fault; pure
"""

from __future__ import annotations

from spool_tools.collector.collector import Collector as Collector
from spool_tools.collector.misbehaviour import Faults as Faults
