"""The fields of `context="basic"`: the system, the installation, the surroundings.

Read once in a process, without a subprocess or another module. Nothing in them names a
person, a machine or a path. A new one is also described in `events.SystemProperties` and
named in `envelope`.
"""

from __future__ import annotations

import os
import sys

from telemetry.switches import ci_variable


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# The variable that a service sets, besides CI, and what it is called here.
_SERVICES = {
    "GITHUB_ACTIONS": "github",
    "GITLAB_CI": "gitlab",
    "CIRCLECI": "circleci",
    "TRAVIS": "travis",
    "BUILDKITE": "buildkite",
    "TF_BUILD": "azure",
    "BITBUCKET_BUILD_NUMBER": "bitbucket",
    "JENKINS_URL": "jenkins",
    "TEAMCITY_VERSION": "teamcity",
    "CODEBUILD_BUILD_ID": "codebuild",
    "APPVEYOR": "appveyor",
    "DRONE": "drone",
}
# What an installer leaves in the path of the interpreter's own files.
_INSTALLERS = {
    "/pipx/venvs/": "pipx",
    "/uv/tools/": "uv-tool",
    "/uv/archive-": "uvx",
    "/uv/builds-": "uvx",
    "/Cellar/": "homebrew",
    "/homebrew/": "homebrew",
    "/nix/store/": "nix",
    "/snap/": "snap",
}
# The same architecture has two names.
_ARCHITECTURES = {"amd64": "x86_64", "aarch64": "arm64"}
_WINDOWS_ARCHITECTURES = {"amd64", "arm64", "x86"}


def basic_context(environment: Mapping[str, str], platform: str) -> dict[str, object]:
    """The fields, by name; see `telemetry.events.SystemProperties` for their meaning."""
    if platform == "win32":
        version = sys.getwindowsversion()  # type: ignore[attr-defined, unused-ignore]
        release = f"{version.major}.{version.minor}.{version.build}"
        machine = environment.get("PROCESSOR_ARCHITECTURE", "").lower()
        machine = machine if machine in _WINDOWS_ARCHITECTURES else ""
    else:
        system = os.uname()
        release, machine = system.release, system.machine
    python = "{}.{}.{}".format(*sys.version_info)
    if sys.implementation.name != "cpython":
        python = f"{sys.implementation.name} {python}"
    return {
        "arch": _ARCHITECTURES.get(machine, machine),
        "ci": ci_name(environment),
        "container": container(environment, release),
        "install": install(environment, sys.prefix.replace("\\", "/") + "/"),
        "os_version": numbers_of(release),
        "python": python,
        "sdk": f"spooled-telemetry/{sys.modules['telemetry'].__version__}",
    }


def ci_name(environment: Mapping[str, str]) -> str | bool:
    """The service of continuous integration; `other` for one unknown, False for none."""
    if not ci_variable(environment):
        return False
    return next(
        (name for key, name in _SERVICES.items() if key in environment), "other"
    )


def container(environment: Mapping[str, str], release: str) -> str | bool:
    """What kind of container this is; False for none."""
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "kubernetes"
    if "microsoft" in release.lower():
        return "wsl"
    if os.path.lexists("/.dockerenv"):
        return "docker"
    return "podman" if os.path.lexists("/run/.containerenv") else False


def install(environment: Mapping[str, str], prefix: str) -> str:
    """How the program was installed, as its interpreter's directory `prefix` tells."""
    if hasattr(sys, "frozen") or "__compiled__" in vars(sys.modules["__main__"]):
        return "frozen"
    # A program that is embedded may have none, or what is no name.
    name, *_ = getattr(sys, "argv", None) or [""]
    is_name = isinstance(name, (str, bytes, os.PathLike))
    if is_name and os.fsdecode(name).endswith((".pyz", ".pex")):
        return "zipapp"
    for part, installer in _INSTALLERS.items():
        if part in prefix:
            return installer
    if environment.get("CONDA_PREFIX", "-") + "/" == prefix:
        return "conda"
    return "venv" if sys.prefix != sys.base_prefix else "system"


def numbers_of(release: str) -> str:
    """The numbers that a version begins with; what follows may be anybody's text."""
    length = next((n for n, c in enumerate(release) if c not in "0123456789."), None)
    return release[:length].strip(".")
