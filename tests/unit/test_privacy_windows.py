"""Paths and names as Windows writes them: none of it comes out."""

from __future__ import annotations

from telemetry.privacy import Scrubber, identity_from


ENVIRONMENT = {
    "USERPROFILE": r"C:\Users\Quillon.Berg",
    "HOMEDRIVE": "C:",
    "HOMEPATH": r"\Users\Quillon.Berg",
    "USERNAME": "Quillon.Berg",
    "USERDOMAIN": "CORP",
    "LOCALAPPDATA": r"C:\Users\Quillon.Berg\AppData\Local",
}
HOMES, USERS = identity_from(ENVIRONMENT)
SCRUBBER = Scrubber(homes=HOMES, users=USERS)

# What stands in an error, a property or a log line; `zanzibar` is private in each.
PATHS = (
    r"C:\Users\Quillon.Berg\zanzibar.txt",
    r"c:\users\quillon.berg\zanzibar.txt",
    "C:/Users/Quillon.Berg/zanzibar.txt",
    r"C:\Users\Quillon.Berg/mixed\zanzibar.txt",
    r"C:\\Users\\Quillon.Berg\\zanzibar.txt",
    r"\\?\C:\Users\Quillon.Berg\zanzibar.txt",
    r"\\.\C:\Users\Quillon.Berg\zanzibar.txt",
    "//?/C:/Users/Quillon.Berg/zanzibar.txt",
    r"\\?\UNC\server\share\zanzibar.txt",
    r"\\server\share\zanzibar.txt",
    r"\\server.corp.example\c$\zanzibar.txt",
    r"\\wsl$\Ubuntu\home\quillon\zanzibar",
    r"\\wsl.localhost\Debian\home\quillon\zanzibar",
    "//server/share/zanzibar.txt",
    r"%USERPROFILE%\zanzibar.txt",
    "%USERPROFILE%/zanzibar.txt",
    r"%LOCALAPPDATA%\zanzibar",
    r"%HOMEDRIVE%%HOMEPATH%\zanzibar",
    r"$env:USERPROFILE\zanzibar",
    r"${env:APPDATA}\zanzibar",
    r"~\zanzibar.txt",
    r"\Users\Quillon.Berg\zanzibar.txt",
    "/c/Users/Quillon.Berg/zanzibar",
    "/cygdrive/c/Users/Quillon.Berg/zanzibar",
    "/mnt/c/Users/Quillon.Berg/zanzibar",
    r"D:\zanzibar\src",
    r"C:\PROGRA~1\zanzibar",
    r"C:\Documents and Settings\Quillon\zanzibar",
    "file:///C:/Users/Quillon.Berg/zanzibar.txt",
    r"C:\Users\Quillon.Berg\AppData\Local\Temp\zanzibar",
    r"..\..\Users\Quillon.Berg\zanzibar",
)
AROUND = (
    "{}",
    "cannot open {}: denied",
    "'{}'",
    '"{}"',
    "path={}",
    "({})",
    "[{}]",
    "a {}, b",
)
NAMES = (
    r"CORP\quillon.berg said no",
    "quillon.berg@CORP is logged on",
    "User quillon.berg was not found",
    "net use failed for CORP\\Quillon.Berg",
    "QUILLON.BERG",
    "Access denied for quillon berg",
)
# What looks like a path of Windows and is none.
ORDINARY = (
    "ratio 1:2",
    "C: is full",
    r"pattern \d+\w*",
    r"escaped \n and \t",
    "HTTP/1.1",
    "a:b",
    "std::vector",
    "50%",
    "100%25",
    "and/or",
)


def test_no_path_of_windows_comes_out() -> None:
    """A path names a person, a customer or a project; whichever slash is used."""
    for scrub in (SCRUBBER.text, SCRUBBER.free_text):
        leaked = [
            text
            for path in PATHS
            for around in AROUND
            if _leaks(scrub(text := around.format(path)))
        ]
        assert leaked == []


def test_no_user_name_of_windows_comes_out() -> None:
    """With a domain or without, in whatever case."""
    leaked = [text for text in NAMES if "quillon" in SCRUBBER.text(text).lower()]
    assert leaked == []


def test_what_is_no_path_of_windows_stays() -> None:
    """Who reads the events wants to know what was said."""
    assert [t for t in ORDINARY if SCRUBBER.text(t) != t] == []


def _leaks(text: str) -> bool:
    text = text.lower()
    return "zanzibar" in text or "quillon" in text
