"""What the flusher's interpreter is started with."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from telemetry.delivery.launch import import_path, interpreter_options


CWD, LIB = os.path.abspath("/cwd"), os.path.abspath("/lib")


def test_the_import_path_loses_the_working_directory_and_relative_entries() -> None:
    """`''` and `.` mean another directory in another process."""
    path = ["", ".", CWD, LIB, "relative", f"{CWD}/../cwd", f"{LIB}/64"]
    assert import_path(path, CWD, [LIB]) == [LIB, f"{LIB}/64"]
    assert import_path(path, CWD, [CWD]) == [CWD, LIB, f"{LIB}/64"]
    assert import_path(path, "", [LIB]) == [LIB, CWD, f"{CWD}/../cwd", f"{LIB}/64"]


def test_the_import_path_holds_what_is_no_path_and_where_we_are_from() -> None:
    """The import system ignores what is no text; a relative entry may be ours."""
    path = [Path(CWD), None, b"/bytes", 7, LIB, f"{LIB}/no\udce9utf8"]
    assert import_path(path, CWD, [LIB, LIB]) == [LIB, f"{LIB}/no\udce9utf8"]
    vendor = os.path.join(CWD, "vendor")
    assert import_path(["vendor", LIB], CWD, [vendor]) == [vendor, LIB]
    assert import_path([], CWD, [f"{LIB}/app.pyz"]) == [f"{LIB}/app.pyz"]


def test_what_lies_beside_the_program_comes_behind_what_we_need() -> None:
    """`urllib3.py` beside a script is another script."""
    program, packages = os.path.abspath("/program"), os.path.join(LIB, "site-packages")
    ours = [LIB, packages]
    assert import_path([program, packages], CWD, ours) == [*ours, program]


def test_certificates_are_where_the_host_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flusher works in the home, where `certs/ca.pem` is no file."""
    monkeypatch.chdir(tmp_path)
    file, both = f"ca{os.pathsep}1.pem", os.pathsep.join(["certs", LIB, ""])
    given = {"SSL_CERT_FILE": file, "SSL_CERT_DIR": both, "HOME": "h"}
    place = os.getcwd()
    assert interpreter_options(given)[1] == {
        "SSL_CERT_FILE": os.path.join(place, file),
        "SSL_CERT_DIR": os.pathsep.join([os.path.join(place, "certs"), LIB, ""]),
        "HOME": "h",
    }


def test_switches_of_the_host_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that is read-only, or compared byte for byte, stays as it is."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", "/elsewhere")
    options, kept = interpreter_options({"PYTHONPATH": "/p", "HOME": "/h"})
    assert "-B" in options
    assert options[-3:-1] == ["-X", "pycache_prefix=/elsewhere"]
    assert (options[-1], kept) == ("-I", {"PYTHONPATH": "/p", "HOME": "/h"})


def test_a_home_of_python_is_needed_and_nothing_else_of_its_variables() -> None:
    """`-I` would ignore where the standard library is."""
    given = {"PYTHONHOME": "/python", "PYTHONPATH": "/p", "PYTHONSTARTUP": "/s"}
    options, kept = interpreter_options({**given, "HOME": "/h"})
    assert "-I" not in options
    assert options[-1] == "-s"
    assert kept == {"PYTHONHOME": "/python", "HOME": "/h"}
