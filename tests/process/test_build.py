"""What a wheel carries: the packages, and the values it was built with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.launching import ROOT


pytest.importorskip("hatchling")


def _wheel(tmp_path: Path, **values: str) -> zipfile.ZipFile:
    """A wheel that is built from a copy of the tree."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(os.path.join(ROOT, name), source)
    for name in ("telemetry", "spool_tools"):
        shutil.copytree(os.path.join(ROOT, name), source / name)
    before = sorted(str(path) for path in source.rglob("*"))
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TELEMETRY_")
    }
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=source,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1", **values},
        check=True,
        capture_output=True,
    )
    assert sorted(str(path) for path in source.rglob("*")) == before
    (wheel,) = tmp_path.glob("*.whl")
    return zipfile.ZipFile(wheel)


def test_build_values_are_in_the_wheel_and_only_there(tmp_path: Path) -> None:
    """A key in a source tree is a key in a repository."""
    values = {
        "TELEMETRY_BUILD_ENDPOINT": "https://built.example/",
        "TELEMETRY_BUILD_API_KEY": "built-in",
        "TELEMETRY_BUILD_HEADER": "x-built",
        "TELEMETRY_BUILD_ENABLED": "false",
    }
    with _wheel(tmp_path, **values) as wheel:
        wheel.extractall(tmp_path / "installed")
    program = (
        "import telemetry as t; print(t.TELEMETRY_ENDPOINT, t.TELEMETRY_API_KEY, "
        "t.TELEMETRY_HEADER, t.TELEMETRY_ENABLED, t.get_telemetry_enabled()); "
        "c = t.configure('app'); print(c.config.endpoint, c.config.api_key, "
        "c.config.header, c.decision().rule)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(tmp_path / "installed"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "https://built.example/ built-in x-built false False",
        "https://built.example/ built-in x-built build",
    ], done.stderr


def test_a_wheel_without_values_has_no_file_for_them(tmp_path: Path) -> None:
    """Nor the hook itself, nor anything that is not of the packages."""
    with _wheel(tmp_path) as wheel:
        names = wheel.namelist()
    assert "telemetry/py.typed" in names
    # What the page needs besides code, and the licence of what is not ours.
    page = ("page.css", "page.js", "uPlot.min.css", "uPlot.min.js", "uPlot.LICENSE")
    assert {f"spool_tools/page/{name}" for name in page} <= set(names)
    assert any(
        name.endswith("licenses/spool_tools/page/uPlot.LICENSE") for name in names
    )
    assert "spool_tools/recipes/clickhouse.sql" in names
    assert "telemetry/_build.py" not in names
    assert "telemetry/build_hook.py" not in names
    tops = {name.split("/")[0] for name in names}
    assert {"telemetry", "spool_tools"} < tops
    assert all(top.startswith(("telemetry", "spool")) for top in tops)
