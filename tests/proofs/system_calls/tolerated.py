"""What follows from a fault itself, costs no event, and cannot be helped."""

from __future__ import annotations

from tests.proofs.system_calls.calls import Fault


def is_tolerated(problem: str, fault: Fault | None) -> bool:
    """Whether this problem is one that its fault excuses."""
    if fault is None:
        return False
    name, text = fault.call.name, fault.call.text
    if problem.startswith("leak:"):
        # A descriptor that nobody could say is still ours: to close it could be to
        # close the host's database.
        return name == "newfstatat" and ("/spool/" in text or "/dead/" in text)
    if problem.startswith("identity:"):
        # A file that one may not read gives way; that this passes cannot be seen.
        return "/user-uuid" in text and fault.error == "EACCES"
    if name == "flock" and "/spool" in text and problem.startswith("books:"):
        # Whether a torn tail is being written cannot be asked: it goes uncounted.
        return "recorded" in problem
    if problem.startswith("copy:"):
        # A full disk has no room for one, and its segment is to make some.
        return fault.error in {"ENOSPC", "EDQUOT"}
    # A disk that stays full whatever is deleted: what was drained from memory could
    # never be written up, so both sides of the equation fall short of it.
    return (
        problem.startswith("books:") and bool(fault.onwards) and fault.error == "ENOSPC"
    )
