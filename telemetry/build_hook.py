"""What hatchling runs when a wheel is built: writes the build-time values into it.

    TELEMETRY_BUILD_ENABLED, TELEMETRY_BUILD_ENDPOINT,
    TELEMETRY_BUILD_API_KEY, TELEMETRY_BUILD_HEADER

Those that are set go into `telemetry/_build.py` of the wheel, and only there:
the file is made in a temporary directory, never in the source tree. With none
of them set the wheel has no such file. An editable install gets none either.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


PREFIX = "TELEMETRY_BUILD_"
NAMES = ("enabled", "endpoint", "api_key", "header")


class CustomBuildHook(BuildHookInterface[Any]):
    """Adds `telemetry/_build.py` to a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is built; `version` is `standard` or `editable`."""
        values = {
            name: os.environ[PREFIX + name.upper()]
            for name in NAMES
            if os.environ.get(PREFIX + name.upper())
        }
        if not values or version != "standard":
            return
        self._directory = tempfile.mkdtemp(prefix="telemetry-build-")
        path = Path(self._directory) / "_build.py"
        path.write_text(
            f'"""Values that this wheel was built with."""\n\nVALUES = {values!r}\n',
            encoding="utf-8",
        )
        build_data["force_include"][str(path)] = "telemetry/_build.py"

    def finalize(
        self, version: str, build_data: dict[str, Any], artifact_path: str
    ) -> None:
        """Called once the wheel is there."""
        shutil.rmtree(getattr(self, "_directory", ""), ignore_errors=True)
