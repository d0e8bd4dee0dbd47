"""A scratch directory in which scenes are played, disturbed and judged."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from telemetry.paths import Home
from tests.proofs.system_calls.calls import KILL, Call, Fault, calls_of, write_in
from tests.proofs.system_calls.cases import Case
from tests.proofs.system_calls.judging import Judge
from tests.proofs.system_calls.scenes import HOME, Collector, Scene, held_in, play
from tests.proofs.system_calls.stage import Stage
from tests.proofs.system_calls.tracing import Nursery, Ran


if TYPE_CHECKING:
    from typing_extensions import Self

_AGAIN = "flush-drain-again"
SCENES = (
    "record-first",
    "record-later",
    "record-power",
    "record-refused",
    "record-off",
    "flush-birth",
    "flush-drain",
    "flush-power",
    _AGAIN,
    "flush-poison",
    "flush-letters",
    "flush-waiting",
    "purge",
    "forget",
)
# Where a sync costs nothing: what is proved here is not about power.
_MEMORY = "/dev/shm"
# One child in so many ends with the interpreter's own end; the others cut it short.
_TO_THE_END = 8
_WRITES_ALONE = ["-e", "trace=write,pwrite64"]


class Laboratory:
    """Scenes, a collector and a nursery in one scratch directory. A context.

    totals: cases by kind; `missed`, whose call was not met again, because the program
        took another turn; `cut`, in which a write was really taken in part;
        `tolerated`, whose faults excuse what came of them; and what was found, by kind
    """

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.findings: list[tuple[Case, list[str]]] = []
        self._stack = contextlib.ExitStack()
        self._runs = 0
        memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
        self._directory = tempfile.mkdtemp(prefix="syscalls-", dir=memory)
        self._stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
        self._collector = Collector()
        self._stack.enter_context(self._collector.server)
        self._nursery = self._stack.enter_context(Nursery())
        stage = f"{self._directory}/stage"
        os.mkdir(stage)
        self._scenes = Stage(stage, self._collector).all()
        self._judges: dict[str, Judge] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def scene(self, name: str) -> tuple[Scene, list[Call]]:
        """The scene of SCENES, and the calls of an undisturbed run on the home."""
        if name == _AGAIN:
            scene = self._interrupted(*self.scene("flush-drain"))
        else:
            (scene,) = (each for each in self._scenes if each.name == name)
        self._judges[name] = Judge(scene, self._collector, self._fresh())
        directory, ran = self._play(scene, [])
        problems = self._judge(directory, ran, Case(scene))
        assert not problems, f"{name} undisturbed: {problems}"
        return scene, calls_of(ran.log, f"{directory}/state")

    def check(self, case: Case) -> list[str]:
        """What is wrong after one disturbance; it is counted in `totals`."""
        fault, length = case.fault, case.file_bytes_max
        options = _WRITES_ALONE if fault is None else fault.options()
        directory, ran = self._play(case.scene, options, file_bytes_max=length)
        place = f"{directory}/state"
        if fault is None:
            self.totals["cut"] += _is_cut(ran.log, place)
        elif not fault.was_met(ran.log, ran.status, place):
            self.totals["missed"] += 1
        problems = self._judge(directory, ran, case)
        self.totals[case.kind] += 1
        self.totals["tolerated"] += self._judges[case.scene.name].tolerated
        for problem in problems:
            self.totals[problem.split(":")[0]] += 1
        if problems:
            self.findings.append((case, problems))
        return problems

    def undisturbed(self, scene: Scene, spoil: Callable[[str, Ran], Ran]) -> list[str]:
        """What is wrong after a run that nothing disturbed but `spoil`, behind it.

        It is given the run's directory and how it went, and says how it went.
        """
        directory, ran = self._play(scene, None)
        return self._judge(directory, spoil(directory, ran), Case(scene))

    def _interrupted(self, scene: Scene, calls: list[Call]) -> Scene:
        """The same scene as a flusher left it that was killed in mid-commit."""
        commits = [
            call
            for call in calls
            if call.name == "pwrite64" and "/ledger/cache.db>" in call.text
        ]
        fault = Fault(commits[len(commits) // 2], KILL)
        directory, ran = self._play(scene, fault.options())
        assert fault.was_met(ran.log, ran.status, f"{directory}/state"), ran.log[-5:]
        made = scene._replace(
            name=_AGAIN,
            directory=f"{self._fresh()}-again",
            held={**scene.held, **held_in(Home(f"{directory}/{HOME}"))},
            accepted=frozenset(self._collector.arrived()),
        )
        shutil.copytree(f"{directory}/state", f"{made.directory}/state")
        return made

    def _fresh(self) -> str:
        self._runs += 1
        return f"{self._directory}/{self._runs}"

    def _play(
        self, scene: Scene, options: list[str] | None, **told: object
    ) -> tuple[str, Ran]:
        self._collector.forget()
        directory = self._fresh()
        home = play(scene, directory)
        told = {
            "program": scene.program,
            "home": home.root,
            "endpoint": self._collector.server.url,
            "to_the_end": self._runs % _TO_THE_END == 0,
            **scene.told,
            **told,
        }
        return directory, self._nursery.run(told, directory, options)

    def _judge(self, directory: str, ran: Ran, case: Case) -> list[str]:
        judge = self._judges[case.scene.name]
        problems = judge.problems(Home(f"{directory}/{HOME}"), ran, case.fault)
        shutil.rmtree(directory, ignore_errors=True)
        return problems


def _is_cut(log: list[str], place: str) -> bool:
    """Whether a write to the home was taken in part."""
    writes = [write_in(line) for line in log if place in line]
    return any(write is not None and 0 < write.taken < write.size for write in writes)
