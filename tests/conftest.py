"""What every test stands on, however the run was started."""

from __future__ import annotations

import compileall
import gc
import inspect
import os
import py_compile
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from telemetry import switches
from tests.support import posix_only
from tests.support.examples import examples


# An example that meets a pause of the machine is no finding.
hypothesis.settings.register_profile(
    "patient",
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")


# Set for a process that rewrites, so that it starts none.
_IS_REWRITING = "TESTS_ARE_BEING_REWRITTEN"


def pytest_configure(config: pytest.Config) -> None:
    """Signals mean something: a shell's background jobs begin with Ctrl-C ignored.

    Those of `nohup` begin with SIGHUP ignored. What is ignored stays so in every process
    that a test starts, and those that are to be interrupted would never notice.
    """
    switches.tests_may_send = True  # these tests try what others are kept from
    # Thousands of tests are objects that stay, and are looked at again and again.
    gc.set_threshold(50_000, 20, 100)
    if sys.dont_write_bytecode and not hasattr(config, "workerinput"):
        # Tests start a thousand processes, and each would compile the package anew.
        for package in ("telemetry", "spool_tools"):
            compileall.compile_dir(
                config.rootpath / package,
                quiet=2,
                # By its content: a mutant may have its original's size and time.
                invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
            )
    is_alone = _IS_REWRITING in os.environ or sys.pycache_prefix is not None
    if config.getoption("numprocesses", None) and not is_alone:
        _rewrite_tests([path for each in config.args if (path := Path(each)).is_dir()])
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_IGN:
        signal.signal(hangup, signal.SIG_DFL)


def _rewrite_tests(directories: list[Path]) -> None:
    """In a new checkout: each worker would rewrite the asserts of all files, side by side.

    That is 11 s of processor time, where one that finds it done takes 3.
    """
    done = f"__pycache__/*.{sys.implementation.cache_tag}-pytest-*.pyc"
    collecting = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pytest",
                "--collect-only",
                "-qq",
                "-n",
                "0",
                directory,
            ],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", _IS_REWRITING: "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for directory in directories
        if os.access(directory, os.W_OK) and not any(directory.glob(done))
    ]
    for process in collecting:
        process.wait()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """On Windows, whole files that try what it lacks."""
    lacks = sys.platform == "win32" and collection_path.name in posix_only.FILES
    return True if lacks else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On Windows, single tests of that kind are skipped by their reason."""
    if sys.platform != "win32":
        return
    for item in items:
        function = getattr(item, "function", None)
        source = inspect.getsource(function) if function else ""
        reason = posix_only.reason_for(item.name, source + item.name)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
