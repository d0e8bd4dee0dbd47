"""Tools for the operator of a spool: see, check, repair and drive it.

`python -m spool_tools` and the installed `spool-tools` are the same. One file a command,
with `add_arguments`, `run` and its help as docstring; what they share:

    cli         how every command ends; commands finds the one that is named
    target      which spool it is about; changing: its lock and its books
    reading     records, letters and damage, one at a time
    screen      output for a person or a program; wording
    why         why nothing arrives, in a sentence; explain
    server      HTTP/1.1, for the next two
    page/       `view`: the page, and its three buttons
    collector/  `collect`: a server that stores events, and misbehaves on request
    own         the same for a program's own command line

These tools import `telemetry`, never the reverse. README.md shows each command.
"""
