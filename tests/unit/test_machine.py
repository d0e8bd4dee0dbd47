"""What is told of the machine: from values alone, and nothing that names anybody."""

from __future__ import annotations

import sys

import msgspec
import pytest

from telemetry import machine
from telemetry.events import SystemProperties
from telemetry.machine import basic_context, ci_name, install, numbers_of


CI = {
    "": False,
    "CI=": False,
    "CI=false": False,
    "CI=0 GITHUB_ACTIONS=false": False,
    "CI=true": "other",
    "CI=1 GITHUB_ACTIONS=true": "github",
    "GITLAB_CI=true": "gitlab",
    "TF_BUILD=True": "azure",
    "JENKINS_URL=http://ci/": "jenkins",
    "CI=true CIRCLECI=true": "circleci",
}
PREFIXES = {
    "/home/me/.local/share/pipx/venvs/frob/": "pipx",
    "/home/me/.local/pipx/venvs/frob/": "pipx",
    "/home/me/.local/share/uv/tools/frob/": "uv-tool",
    "C:/Users/me/AppData/Roaming/uv/tools/frob/": "uv-tool",
    "/home/me/.cache/uv/archive-v0/Xy1/": "uvx",
    "/opt/homebrew/Cellar/frob/1.0/libexec/": "homebrew",
    "/usr/local/Cellar/frob/1.0/libexec/": "homebrew",
    "/nix/store/abc-frob/": "nix",
    "/snap/frob/12/": "snap",
}
RELEASES = {
    "6.18.5-my-own-kernel": "6.18.5",
    "24.1.0": "24.1.0",
    "5.15.0-1051-azure": "5.15.0",
    "4.4.0.mine": "4.4.0",
    "mine": "",
    "": "",
}


def _environment(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split())


def test_continuous_integration_has_a_name() -> None:
    """Without it, a thousand runs of one pipeline look like a thousand users."""
    assert {text: ci_name(_environment(text)) for text in CI} == CI


def test_an_installation_has_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user should be told to upgrade with depends on it."""
    monkeypatch.setattr(sys, "argv", ["frob"])
    assert {prefix: install({}, prefix) for prefix in PREFIXES} == PREFIXES
    assert install({"CONDA_PREFIX": "/opt/conda"}, "/opt/conda/") == "conda"
    assert install({"CONDA_PREFIX": "/opt/conda"}, "/home/me/venv/") in {
        "venv",
        "system",
    }
    monkeypatch.setattr(sys, "argv", ["/home/me/bin/frob.pyz"])
    assert install({}, "/usr/") == "zipapp"
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert install({}, "/usr/") == "frozen"


def test_a_container_is_told_by_what_it_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in a container has no user who would read a notice."""
    there: set[str] = set()
    monkeypatch.setattr(machine.os.path, "lexists", lambda path: path in there)
    assert machine.container({}, "6.1.0") is False
    assert machine.container({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "") == (
        "kubernetes"
    )
    assert machine.container({}, "5.15.90.1-Microsoft-standard-WSL2") == "wsl"
    there.add("/run/.containerenv")
    assert machine.container({}, "6.1.0") == "podman"
    there.add("/.dockerenv")
    assert machine.container({}, "6.1.0") == "docker"


def test_a_release_loses_what_is_no_number() -> None:
    """Who builds a kernel may put a name into it."""
    assert {release: numbers_of(release) for release in RELEASES} == RELEASES


def test_every_field_is_in_the_catalogue() -> None:
    """What is sent and described nowhere is what people mind most."""
    told = basic_context({}, sys.platform)
    described = {field.name for field in msgspec.structs.fields(SystemProperties)}
    assert told.keys() <= described
    named = {"event_id", "os", "os_language", "user_uuid", "version", "invocation_id"}
    assert described - told.keys() == named
    assert told["python"] == ".".join(map(str, sys.version_info[:3])) or (
        sys.implementation.name in str(told["python"])
    )
    assert str(told["sdk"]).startswith("spooled-telemetry/0")
