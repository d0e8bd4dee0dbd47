"""Dead letters: events that a server refused for good, with the reason.

    <home>/dead/<created ns>-<random>.v1.jseq

Each file has the format of a segment. A record's `rec` is one letter: the event as it
was posted, why it died, and where it stood (`segment`, `offset`). Only the holder of
the flush lock writes here.

A letter is appended and synced before its event is settled. The commit that settles
the event also moves the end of what counts in the file (`DeadFile`), so a letter whose
event was not settled yet counts for nothing, after a crash as before it. The file is
then not written further; the event will be sent again.

Letters leave a file, to be sent again or dropped, by a new file that holds the rest:

    write      the rest, and a segment with the retried events, under temporary names,
               synced
    commit     the old file counts no letters, the new ones count
    rename     the new files to their names
    unlink     the old file

Killed before the commit, nothing has changed, and the next flush removes temporary
files. Killed behind it, the next flush goes on at the rename (`finish_moves`).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

import msgspec

from telemetry.books.books import Books
from telemetry.books.entries import DeadFile, SegmentEntry, Snapshot
from telemetry.errors import DiskError, SpoolError
from telemetry.files import (
    TEMPORARY,
    make_directory,
    sync,
    sync_directory,
    write_whole,
)
from telemetry.paths import Home, is_segment, segment_created_ns, segment_name
from telemetry.spool import frame
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader, segment_names
from telemetry.spool.segment import Segment, adopt, create
from telemetry.spool.writer import size_of


# A file is rewritten when a letter leaves it, so it stays small.
FILE_BYTES = 1 << 20
# The name of a new file between the commit that makes it count and its rename.
_MOVED = f"{TEMPORARY}moved"
NO_EVENT = msgspec.Raw(b"null")


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One refused event.

    event: the event as it was posted; null where `dead/` had reached its bound
    reason: a word for why: the status, a kind of failure, or `rejected`
    status: the HTTP status of the last reply; 0 without one
    reply: an excerpt of the reply, or the reason that the server gave
    time_ms: when it was given up, milliseconds since 1970
    attempts: requests that held it alone, or named it as rejected
    segment, offset: where the event stood
    """

    event: msgspec.Raw
    reason: str
    status: int
    reply: str
    time_ms: int
    attempts: int
    segment: str
    offset: int

    @property
    def name(self) -> str:
        """What a person calls the letter by; it stays the same if its file does not."""
        return f"{self.segment}-{self.offset}"

    @property
    def has_event(self) -> bool:
        """Whether the event itself was kept."""
        return bytes(self.event) != bytes(NO_EVENT)


class Standing(NamedTuple):
    """A letter that counts, or a damaged one, which is counted where None stands."""

    file: str
    letter: DeadLetter | None


def read_letters(home: Home, snapshot: Snapshot) -> Iterator[Standing]:
    """Every letter that counts, oldest first. A file that cannot be read is left out."""
    for name, letters in letters_by_file(home, snapshot):
        for letter in letters or ():
            yield Standing(name, letter)


def letters_by_file(
    home: Home, snapshot: Snapshot
) -> Iterator[tuple[str, list[DeadLetter | None] | None]]:
    """The files of letters, oldest first, each with its letters that count.

    None where it cannot be read at this moment, which says nothing of what it holds.
    """
    for name, file in _files_that_count(home, snapshot):
        known = snapshot.dead_files.get(name)
        letters = None
        with (
            suppress(SpoolError),
            closing(SegmentReader(home, file, home.dead)) as reader,
        ):
            letters = list(_letters_in(reader, known, home))
        yield name, letters


def _letters_in(
    reader: SegmentReader, known: DeadFile | None, home: Home
) -> Iterator[DeadLetter | None]:
    present = set(segment_names(home)) if known is None else set()
    seq = -1
    until = known.end if known else None
    for item in reader.items(until=until):
        if not isinstance(item, Record):
            continue
        letter = _decoded(item)
        if known is None and (letter is None or letter.segment in present):
            # The ledger was lost, or a flusher was killed before its commit. The
            # event still stands in its segment and is sent from there.
            continue
        yield from [None] * (item.seq - seq - 1)
        seq = item.seq
        yield letter
    if known is not None:
        yield from [None] * (known.letters - seq - 1)


def _files_that_count(home: Home, snapshot: Snapshot) -> list[tuple[str, str]]:
    """The files of letters, oldest first, each with the name that it has now.

    None where a directory of another user is in their place: there is nothing of ours.
    """
    files = {
        name: name + _MOVED
        for name in snapshot.dead_files
        if os.path.lexists(f"{home.dead}/{name}{_MOVED}")
    }
    with suppress(PermissionError):
        files |= {name: name for name in segment_names(home, home.dead)}
    return sorted(
        (name, file)
        for name, file in files.items()
        if name not in snapshot.dead_files or snapshot.dead_files[name].letters
    )


def _decoded(record: Record) -> DeadLetter | None:
    try:
        return msgspec.json.decode(record.event, type=DeadLetter)
    except (ValueError, RecursionError):
        return None


def count_letters(home: Home, snapshot: Snapshot) -> int:
    """How many letters count, damaged ones included.

    By where records seem to begin, without a look at their checksums.
    """
    count = 0
    for name, file in _files_that_count(home, snapshot):
        known = snapshot.dead_files.get(name)
        try:
            reader = SegmentReader(home, file, home.dead)
        except SpoolError:
            continue
        try:
            if known is None:
                count += sum(1 for _ in _letters_in(reader, None, home))
            else:
                count += reader.count_marks(0, known.end)
        except (SpoolError, OSError):
            continue
        finally:
            reader.close()
    return count


class DeadLetterWriter:
    """Appends the letters of one flush. `bytes_max` bounds what `dead/` holds.

    Beyond the bound a letter keeps its reason and loses its event.
    """

    def __init__(self, home: Home, books: Books, *, bytes_max: int) -> None:
        self._home = home
        self._books = books
        self._bytes_max = bytes_max
        self._bytes = 0
        self._file: Segment | None = None

    def append(self, letters: Sequence[DeadLetter]) -> dict[str, DeadFile]:
        """The letters are synced on return; the rows make them count once committed.

        Raises OSError. Letters that were appended by then count for nothing.
        """
        rows: dict[str, DeadFile] = {}
        try:
            self._append(letters, rows)
        except OSError:
            self._forget(rows)
            raise
        return rows

    def _append(self, letters: Sequence[DeadLetter], rows: dict[str, DeadFile]) -> None:
        for letter in letters:
            file = self._open_file()
            content = msgspec.json.encode(letter)
            if self._bytes + len(content) > self._bytes_max:
                content = msgspec.json.encode(
                    msgspec.structs.replace(letter, event=NO_EVENT, reply="")
                )
            self._write(file, content)
            self._bytes += len(content) + frame.OVERHEAD
            rows[file.name] = DeadFile(end=file.size, letters=file.seq)
            if file.size >= FILE_BYTES:
                sync(file.descriptor)
                self.close()
        if self._file is not None:
            sync(self._file.descriptor)

    def _forget(self, files: Iterable[str]) -> None:
        """Letters that were appended in vain are in no file of which others count.

        In a file that the ledger knows they stand behind its end. Killed before a new one
        is gone, the next flush removes them (`learn_files`). Raises OSError if one cannot
        be removed: were the letters written once more now, both would count.
        """
        names = {*files, *([self._file.name] if self._file else [])}
        self.close()
        for name in names - self._books.snapshot.dead_files.keys():
            with suppress(FileNotFoundError):
                os.unlink(f"{self._home.dead}/{name}")

    def close(self) -> None:
        """The next letter goes into another file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _write(self, file: Segment, content: bytes) -> None:
        try:
            is_kept = file.append(content)
        except DiskError as error:
            cause = error.__cause__
            # A write that was cut short has no cause: there was room for a part of it.
            number = cause.errno if isinstance(cause, OSError) else errno.ENOSPC
            raise OSError(number, error.problem, file.path) from error
        if not is_kept:
            raise OSError(errno.ESTALE, "its path leads elsewhere", file.path)

    def _open_file(self) -> Segment:
        """The newest file if it can be written further, else a new one."""
        if self._file is None:
            directory = self._home.dead
            make_directory(directory, durable=True)
            self._bytes = size_of(directory)
            self._file = self._adopted() or create(_new_path(self._home, directory))
            if self._file is None:
                raise OSError(errno.EBUSY, "taken away as it was made", directory)
            sync_directory(directory)
        return self._file

    def _adopted(self) -> Segment | None:
        names = segment_names(self._home, self._home.dead)
        known = self._books.snapshot.dead_files.get(names[-1]) if names else None
        if known is None or not known.letters:
            return None
        file = adopt(f"{self._home.dead}/{names[-1]}", FILE_BYTES)
        if file is not None and (file.size, file.seq) != (known.end, known.letters):
            file.close()  # behind its end stand letters that count for nothing
            return None
        return file


def drop(home: Home, books: Books, chosen: Collection[str]) -> int:
    """Remove letters by name and count them as purged; how many there were.

    Raises LedgerError and OSError; killed or failed on the way, all or none is done. If
    it is a file that cannot be renamed or removed, the next flush goes on with it.
    """
    return _take_out(home, books, chosen, retry=False)


def retry(home: Home, books: Books, chosen: Collection[str]) -> int:
    """Letters by name are pending events again, in a segment of their own.

    How many there were; one that lost its event stays. Raises as `drop` does.
    """
    return _take_out(home, books, chosen, retry=True)


def _take_out(home: Home, books: Books, chosen: Collection[str], *, retry: bool) -> int:
    stay: dict[str, list[DeadLetter]] = {}
    leave: dict[str, list[DeadLetter]] = {}
    damaged = 0
    for file, letter in read_letters(home, books.snapshot):
        stay.setdefault(file, [])
        if letter is not None:
            is_meant = letter.name in chosen and (letter.has_event or not retry)
            (leave if is_meant else stay).setdefault(file, []).append(letter)
    events = [bytes(each.event) for letters in leave.values() for each in letters]
    if not events:
        return 0
    for file, gone in leave.items():
        known = books.snapshot.dead_files.get(file)
        if known is not None:
            # What was damaged in it is left behind with the old file.
            damaged += known.letters - len(gone) - len(stay[file])
    files = _rewritten(home, {file: stay[file] for file in leave})
    totals = books.snapshot.totals
    totals = msgspec.structs.replace(
        totals,
        damaged=totals.damaged + damaged,
        purged=totals.purged + (0 if retry else len(events)),
    )
    segments = {}
    if retry:
        name = write_moved(home, home.spool, events)
        segments[name] = SegmentEntry(offset=0, retried=len(events))
    books.commit(segments=segments, totals=totals, dead_files=files)
    problems = finish_moves(home, books)
    for name in (*files, *segments):
        if name in problems:
            raise problems[name]
    return len(events)


def learn_files(home: Home, books: Books) -> None:
    """Every file holds what counts and nothing else on return, and the ledger knows it.

    Letters that it did not know are there where it was lost with what it knew: the totals
    began anew then, without the segments that these stood in. Letters that a killed
    flusher had not settled go. A file that cannot be read now is left to the next flush.
    Raises LedgerError and OSError.
    """
    snapshot = books.snapshot
    known = snapshot.dead_files
    odd = {
        name
        for name in segment_names(home, home.dead)
        # A directory in a file's place holds no letter and is no work of ours.
        if not os.path.isdir(f"{home.dead}/{name}")
        if name not in known or _size_of(f"{home.dead}/{name}") > known[name].end > 0
    }
    if not odd:
        return
    letters = {
        file: [each for each in found if each is not None]
        for file, found in letters_by_file(home, snapshot)
        if file in odd and found is not None
    }
    gone = [
        known[file].letters - len(found)
        for file, found in letters.items()
        if file in known
    ]
    unknown = sum(len(found) for file, found in letters.items() if file not in known)
    totals = snapshot.totals
    totals = msgspec.structs.replace(
        totals,
        damaged=totals.damaged + sum(gone),
        recorded=totals.recorded or unknown,
    )
    books.commit(dead_files=_rewritten(home, letters), totals=totals)
    finish_moves(home, books)


def _rewritten(
    home: Home, letters: Mapping[str, Sequence[DeadLetter]]
) -> dict[str, DeadFile]:
    """The rows with which each file gives way to a new one that holds these letters."""
    files = dict.fromkeys(letters, DeadFile(end=0, letters=0))
    for rest in letters.values():
        if rest:
            texts = list(map(msgspec.json.encode, rest))
            size = sum(len(each) + frame.OVERHEAD for each in texts)
            name = write_moved(home, home.dead, texts)
            files[name] = DeadFile(end=size, letters=len(rest))
    return files


def finish_moves(home: Home, books: Books) -> dict[str, OSError]:
    """Finish what `drop` or `retry` has committed. Raises LedgerError.

    Which files could not be renamed or removed, and why. Their rows stay as they are,
    so these count as they do now, and the next flush tries again.
    """
    snapshot = books.snapshot
    moved = [
        *(
            home.segment(name)
            for name, each in snapshot.segments.items()
            if each.retried
        ),
        *(f"{home.dead}/{name}" for name in snapshot.dead_files),
    ]
    problems: dict[str, OSError] = {}
    for path in moved:
        if os.path.lexists(path + _MOVED) and not os.path.lexists(path):
            _try(os.rename, path + _MOVED, path, problems=problems)
    gone = {
        name: each
        for name, each in snapshot.dead_files.items()
        if not each.letters or not _stands(f"{home.dead}/{name}")
    }
    for name in gone:
        _try(os.unlink, f"{home.dead}/{name}", problems=problems)
    gone = {name: each for name, each in gone.items() if name not in problems}
    if gone:
        # Renamed and unlinked is not yet synced, and the rows are what knows of it.
        for directory in (home.spool, home.dead):
            if os.path.isdir(directory):
                sync_directory(directory)
        # A file that was taken away by hand takes its letters with it.
        lost = sum(each.letters for each in gone.values())
        totals = snapshot.totals
        totals = msgspec.structs.replace(totals, damaged=totals.damaged + lost)
        books.commit(totals=totals, dead_files=dict.fromkeys(gone))
    return problems


def _try(
    change: Callable[..., object], *paths: str, problems: dict[str, OSError]
) -> None:
    """Change the file, or put why it cannot be into `problems` under its final name."""
    try:
        change(*paths)
    except FileNotFoundError:
        pass  # a kill came between this and the commit that forgets it
    except OSError as error:
        problems[os.path.basename(paths[-1])] = error


def _stands(path: str) -> bool:
    """Whether a file of letters is there: what cannot be looked at now is."""
    for each in (path, path + _MOVED):
        try:
            os.lstat(each)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass
        return True
    return False


def _size_of(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def is_move(name: str, snapshot: Snapshot) -> bool:
    """Whether a temporary name is that of a file which counts, and is to be renamed."""
    final = name.removesuffix(_MOVED)
    return final != name and (
        final in snapshot.dead_files or final in snapshot.segments
    )


def moved_segments(home: Home, snapshot: Snapshot) -> dict[str, str]:
    """Segments that a killed move did not rename yet, and the names they have."""
    return {
        name: f"{name}{_MOVED}"
        for name, entry in snapshot.segments.items()
        if entry.retried
        and not os.path.lexists(home.segment(name))
        and os.path.lexists(home.segment(name) + _MOVED)
    }


def write_moved(home: Home, directory: str, contents: Sequence[bytes]) -> str:
    """A new file of records under its temporary name, synced; its final name."""
    path = _new_path(home, directory)
    make_directory(directory, durable=True)
    records = b"".join(frame.encode(seq, each) for seq, each in enumerate(contents))
    write_whole(path + _MOVED, records, durable=True)
    return os.path.basename(path)


def _new_path(home: Home, directory: str) -> str:
    names = [name for name in segment_names(home, directory) if is_segment(name)]
    newest_ns = segment_created_ns(names[-1]) if names else 0
    name = segment_name(max(time.time_ns(), newest_ns + 1), os.urandom(4))
    return f"{directory}/{name}"
