"""What we are compared with: libraries in an environment of their own, and isolation.

The environment is made outside the checkout, once, and only where `--install`
asks for it. None of these libraries is a dependency of the project. They are
told to send to a closed port of this machine, and run where no network but
loopback exists, if the system can give them that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv

from tests.bench import pythons


_NAME = "spooled-telemetry-bench"
# What the project itself needs is there as well: all run in the same interpreter.
_PACKAGES = (
    "msgspec",
    "diskcache",
    "urllib3",
    "tenacity",
    "litequeue",
    "persist-queue",
    "azure-monitor-opentelemetry-exporter",
    "sentry-sdk",
    "posthog",
    "segment-analytics-python",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp-proto-http",
    "snowplow-tracker",
    "azure-cli-telemetry",
)
_SYSLOG = ("syslog-ng-core", "syslog-ng-mod-http")
NOT_INSTALLED = "not installed; run `python -m tests.bench --install` once"


def cache() -> str:
    """Where all environments are."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, _NAME)


def directory() -> str:
    """Where the environment is, for this version of Python."""
    return os.path.join(cache(), "python{}.{}".format(*sys.version_info))


def interpreter() -> str:
    """The environment's Python; empty where there is none."""
    found = f"{directory()}/bin/python"
    return found if os.path.exists(f"{directory()}/complete") else ""


def install() -> None:
    """The libraries are installed on return, and syslog-ng if we may.

    Says what it does. What cannot be installed is left out of the table.
    """
    try:
        _install()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"not everything could be installed: {error}", flush=True)


def _install() -> None:
    pythons.install(cache())
    if not interpreter():
        print(f"making {directory()}", flush=True)
        venv.create(directory(), clear=True, with_pip=True)
        subprocess.run(
            [f"{directory()}/bin/python", "-m", "pip", "install", "-qq", *_PACKAGES],
            check=True,
            timeout=900,
        )
        with open(f"{directory()}/complete", "w", encoding="utf-8"):
            pass
    if not shutil.which("syslog-ng") and shutil.which("apt-get") and os.geteuid() == 0:
        print(f"installing {' '.join(_SYSLOG)}", flush=True)
        # RUNLEVEL keeps Debian from starting it as the machine's logger.
        subprocess.run(
            ["apt-get", "install", "-y", "--no-install-recommends", *_SYSLOG],
            check=True,
            timeout=900,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
            stdout=subprocess.DEVNULL,
        )


def isolation() -> list[str]:
    """The words before a command that leave it without a network; none if impossible."""
    for words in (["unshare", "-n", "--"], ["unshare", "-r", "-n", "--"]):
        if shutil.which(words[0]):
            tried = subprocess.run([*words, "true"], capture_output=True, check=False)
            if tried.returncode == 0:
                return words
    return []
