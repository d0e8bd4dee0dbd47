"""Bugs that are planted in a copy of the tree, so that the proof has to find them.

Each is one that somebody might write: a few lines that look right, and lose, alter or
miscount an event only if a call fails or a kill comes at one moment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


REPOSITORY = Path(__file__).resolve().parents[3]
_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", "bench")
# Enough of one kind to meet the moment.
_CASES = 100


class Bug(NamedTuple):
    """In `path`, each first text of `changes` stands once and becomes the second.

    scene, kind: among which cases it is looked for
    shown_by: the kind of the findings that show it
    """

    name: str
    path: str
    changes: tuple[tuple[str, str], ...]
    scene: str
    kind: str
    shown_by: str


_SEND = """\
        self._sent.append((batch, self._poster.send(batch.request)))
        self._land(self._poster.at_once - 1)
"""
_EARLY = """\
        is_early = b"poison" not in batch.request.body  # else no dead letter
        if is_early:
            self._accept(batch, Verdict(Action.ACCEPTED, "200"))
            self._books.commit()
        self._sent.append((batch, self._poster.send(batch.request)))
        if is_early:
            self._poster.answer(self._sent.pop()[1])
        self._land(self._poster.at_once - 1)
"""
_LETTERS = "        rows = self._written(letters) if letters else {}\n"
_COMMIT = "            self.books.commit(segments=entries, dead_files=rows)\n"
_LATE = """\
            self.books.commit(segments=entries)
            rows = self.letters.append(letters)
            self.books.commit(dead_files=rows)
"""
BUGS = (
    Bug(
        name="a short write passes for a whole one",
        path="telemetry/spool/segment.py",
        changes=(("if written != len(record):\n", "if written < 0:\n"),),
        scene="record-later",
        kind="length",
        shown_by="lost",
    ),
    Bug(
        name="a batch is settled before the answer",
        path="telemetry/delivery/drain.py",
        changes=((_SEND, _EARLY),),
        scene="flush-drain",
        kind="kill",
        shown_by="lost",
    ),
    Bug(
        name="a segment is deleted before its settling is on disk",
        path="telemetry/delivery/settlement.py",
        changes=(("if not self._books.is_saved:\n", "if False:\n"),),
        scene="flush-drain",
        kind="kill",
        shown_by="books",
    ),
    Bug(
        name="a dead letter is written after its event is settled",
        path="telemetry/delivery/settlement.py",
        changes=((_LETTERS, ""), (_COMMIT, _LATE)),
        scene="flush-poison",
        kind="kill",
        shown_by="lost",
    ),
)


def found_in(bug: Bug, directory: str) -> dict[str, int]:
    """The totals of a proof of a tree with this bug, which is made in `directory`."""
    tree = Path(directory, "tree")
    tree.mkdir()
    for name in ("telemetry", "tests", "pyproject.toml"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=_IGNORED)
        else:
            shutil.copy(source, tree / name)
    path = tree / bug.path
    content = path.read_text()
    for old, new in bug.changes:
        assert content.count(old) == 1, f"{bug.path} has not, or not once: {old}"
        content = content.replace(old, new)
    path.write_text(content)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.proofs.system_calls.syscalls"),
            *("--scene", bug.scene, "--kind", bug.kind, "--count", str(_CASES)),
        ],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    totals: dict[str, int] = json.loads(done.stdout)
    return totals
