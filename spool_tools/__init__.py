"""Tools for whoever looks after a spool: see, check, mend and drive it.

`python -m spool_tools` and the installed `spool-tools` are the same. One file a
command; `cli.py` finds them. These tools import `telemetry`, never the reverse.
"""
