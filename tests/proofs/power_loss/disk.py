"""A disk as a trace shows it: what is safe, and what is only in the kernel's memory.

- A file's content is safe up to the last sync that began when it was written.
- A name is safe once its directory was synced; a file's own sync says nothing of it.
- A rename within one directory is one step; between two, each has its own half.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.proofs.power_loss.trace import Operation


class Change(NamedTuple):
    """Bytes that were written at an offset, or, without any, a new length."""

    ended: int
    at: int
    content: bytes | None


class Step(NamedTuple):
    """What one call did to the names of a directory; None takes a name away."""

    ended: int
    names: tuple[tuple[str, File | Folder | None], ...]


class File:
    """Its safe content, and the changes that are not safe yet, in order."""

    def __init__(self) -> None:
        self.safe = b""
        self.changes: list[Change] = []
        self.size = 0

    def now(self) -> bytes:
        """What a program reads."""
        return changed(self.safe, self.changes)

    def sync(self, began: int) -> None:
        """What had ended before is safe."""
        done = [each for each in self.changes if each.ended < began]
        self.changes = [each for each in self.changes if each.ended >= began]
        self.safe = changed(self.safe, done)


class Folder:
    """Its safe names, and the steps that are not safe yet, in order."""

    def __init__(self) -> None:
        self.safe: dict[str, File | Folder] = {}
        self.steps: list[Step] = []
        self.names: dict[str, File | Folder] = {}

    def take(self, step: Step) -> None:
        """One more step."""
        self.steps.append(step)
        stepped(self.names, [step])

    def sync(self, began: int) -> None:
        """What had ended before is safe."""
        stepped(self.safe, [each for each in self.steps if each.ended < began])
        self.steps = [each for each in self.steps if each.ended >= began]


def changed(content: bytes, changes: Sequence[Change]) -> bytes:
    """A content after some changes; a hole is zeros."""
    if not changes:
        return content
    after = bytearray(content)
    for _, at, piece in changes:
        if len(after) < at:
            after += bytes(at - len(after))
        if piece is None:
            del after[at:]
            after += bytes(at - len(after))
        else:
            after[at : at + len(piece)] = piece
    return bytes(after)


def stepped(names: dict[str, File | Folder], steps: Sequence[Step]) -> None:
    """Names after some steps."""
    for step in steps:
        for name, node in step.names:
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node


class Disk:
    """The directory of a story, empty at first, after the operations so far."""

    def __init__(self) -> None:
        self.root = Folder()
        # The file that was changed last.
        self.touched = File()
        # Open files outlive their names.
        self._last: dict[str, File | Folder] = {".": self.root}

    def node(self, path: str) -> File | Folder:
        """What a path leads to, or the last thing it led to."""
        return self._found(path) or self._last[path]

    def play(self, operations: Sequence[Operation]) -> Iterator[Operation]:
        """Do one after the other; each is given once it is seen, a sync once it is done."""
        waiting: list[Operation] = []
        # Calls that began before another process made the directory they work in.
        early: list[Operation] = []
        for operation in operations:
            for sync in sorted(waiting, key=lambda each: each.ended):
                if sync.ended < operation.began:
                    waiting.remove(sync)
                    self.node(sync.path).sync(sync.began)
                    yield sync
            if operation.kind == "sync":
                waiting.append(operation)
                continue
            early.append(operation)
            for each in [*reversed(early)] if operation.kind == "mkdir" else early[-1:]:
                if self._has_place(each):
                    early.remove(each)
                    self._do(each)
                    yield each
        assert not early, early
        for sync in waiting:
            self.node(sync.path).sync(sync.began)
            yield sync

    def _has_place(self, operation: Operation) -> bool:
        where = os.path.dirname(operation.other or operation.path) or "."
        return where in self._last or self._found(where) is not None

    def _do(self, done: Operation) -> None:
        if done.kind in {"write", "cut"}:
            file = self.node(done.path)
            assert isinstance(file, File), done
            self.touched = file
            if done.kind == "cut":
                assert done.at is not None
                file.changes.append(Change(done.ended, done.at, None))
                file.size = done.at
            else:
                at = file.size if done.at is None else done.at
                file.changes.append(Change(done.ended, at, done.content))
                file.size = max(file.size, at + len(done.content))
        elif done.kind == "make":
            if self._found(done.path) is None:
                self._name(done, done.path, File())
        elif done.kind == "mkdir":
            self._name(done, done.path, Folder())
        elif done.kind == "unlink":
            self._name(done, done.path, None)
        elif done.kind == "link":
            self._name(done, done.other, self.node(done.path))
        elif done.kind == "rename":
            self._rename(done)

    def _rename(self, done: Operation) -> None:
        node = self.node(done.path)
        old, new = os.path.split(done.path), os.path.split(done.other)
        if old[0] == new[0]:
            names = ((old[1], None), (new[1], node))
            self._folder(old[0]).take(Step(done.ended, names))
            self._last[done.other] = node
        else:
            self._name(done, done.other, node)
            self._name(done, done.path, None)

    def _name(self, done: Operation, path: str, node: File | Folder | None) -> None:
        where, name = os.path.split(path)
        self._last[path] = node or self.node(path)
        self._folder(where).take(Step(done.ended, ((name, node),)))

    def _folder(self, path: str) -> Folder:
        folder = self.node(path or ".")
        assert isinstance(folder, Folder)
        return folder

    def _found(self, path: str) -> File | Folder | None:
        node: File | Folder | None = self.root
        for name in path.split("/"):
            if name != ".":
                node = node.names.get(name) if isinstance(node, Folder) else None
        return node


def tree(folder: Folder, path: str = "") -> dict[str, bytes | None]:
    """Every file by its path, and every directory as None, as programs see them."""
    found: dict[str, bytes | None] = {}
    for name, node in folder.names.items():
        if isinstance(node, File):
            found[path + name] = node.now()
        else:
            found[path + name] = None
            found.update(tree(node, f"{path}{name}/"))
    return found
