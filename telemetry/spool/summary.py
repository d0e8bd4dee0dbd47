"""What one launch found in a spool of very many segments, for the next one.

    <CRC-32> <the directory's time, ns> <bytes of the others> <newest name> <older name> …

To ask 10,000 segments for their size takes 60 ms. What is made or deleted in the spool
changes the time of its directory: a launch that finds the same time asks only the newest
segments, which are those that may have grown. Where nothing can be locked each launch
makes a segment, and looks at all of them.

It says what is in the spool as far as the bound goes, which is soft. Lost, damaged or
torn it costs a look; it is no proof that the spool is full, and it is not believed for
long, as not every file system keeps the time of a directory.
"""

from __future__ import annotations

import os
import time
from zlib import crc32

from telemetry.files import read_small, write_whole
from telemetry.paths import is_segment


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_FILE_BYTES_MAX = 4096
_BELIEVED_S = 3600.0
# The directory's time counts in steps, of two seconds at the worst: what is made in the
# step of the look does not show.
_SETTLED_S = 2.5


def read(path: str, changed_ns: int) -> tuple[list[str], int] | None:
    """The newest segments and the bytes of the others; None where a look is needed.

    `changed_ns` is the time of the directory now.
    """
    try:
        if not 0 <= time.time() - os.stat(path).st_mtime < _BELIEVED_S:
            return None
        content = read_small(path, _FILE_BYTES_MAX) or b""
        checksum, _, line = content.partition(b" ")
        changed, others, *newest = line.decode("ascii").split()
        is_whole = checksum == b"%08x" % crc32(line) and all(map(is_segment, newest))
        if is_whole and int(changed) == changed_ns:
            return newest, int(others)
    except (OSError, ValueError):
        pass  # the next look writes it anew
    return None


def write(
    path: str, changed_ns: int, began_s: float, newest: Sequence[str], others: int
) -> None:
    """Keep what a look has found that began then, if the directory was at rest before.

    `began_s` is in seconds since 1970.
    """
    if newest and began_s - changed_ns / 1e9 > _SETTLED_S:
        line = f"{changed_ns} {others} {' '.join(newest)}\n".encode()
        try:
            write_whole(path, b"%08x %b" % (crc32(line), line))
        except OSError:
            pass  # the next launch looks again
