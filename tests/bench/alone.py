"""Runs programs in turns, as a program, where there may be no network at all.

    unshare -n python -m tests.bench.alone < what.json

Standard input is `{"programs": {name: [command, environment]}, "rounds": n, "warm": …}`;
standard output is `{name: [seconds, …]}`. A fresh network namespace has its
loopback switched off, which would make a closed port look like a dead network:
it is switched on first.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
from collections.abc import Callable

from tests.bench.measuring import in_turns, run


# From <linux/sockios.h> and <linux/if.h>.
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def raise_loopback() -> None:
    """127.0.0.1 can be reached on return; nothing changes where it could before."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh", b"lo", 0)
        _, flags = struct.unpack(
            "16sh", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, asked)[:18]
        )
        if not flags & _IFF_UP:
            wanted = struct.pack("16sh", b"lo", flags | _IFF_UP)
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, wanted)


def main() -> None:
    """Measure what standard input names."""
    if sys.platform == "linux":
        raise_loopback()
    told = json.load(sys.stdin)

    def side(command: list[str], environment: dict[str, str]) -> Callable[[], float]:
        return lambda: (
            run(command, environment=environment, directory=environment["HOME"]).wall_s
        )

    sides = [side(*each) for each in told["programs"].values()]
    taken = in_turns(told["rounds"], *sides, warm=told["warm"])
    print(json.dumps(dict(zip(told["programs"], taken, strict=True))))


if __name__ == "__main__":
    main()
