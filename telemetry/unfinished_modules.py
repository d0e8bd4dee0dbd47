"""What a forked child does about modules that another thread of its parent was loading.

That thread is not there in the child, and the lock that it had of each module (Python's
own) is never released: the first event of the child would wait for ever. So the child
unloads those modules, and loads them anew when it needs them.
"""

import sys
from _thread import get_ident


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OURS = "telemetry."


def unload_unfinished() -> None:
    """In a child: what the thread was loading that loaded a module of ours, is unloaded.

    That may be any module, of the library or of others, which ours needs. What other
    threads load is left alone.
    """
    importing: Any = sys.modules.get("_frozen_importlib")
    locks = getattr(importing, "_module_locks", {})
    found = [(name, lock()) for name, lock in tuple(locks.items())]
    owners = {name: getattr(lock, "owner", None) for name, lock in found}
    gone = {owners[name] for name in owners if name.startswith(_OURS)}
    for name, owner in owners.items():
        if owner in gone - {None, get_ident()}:
            locks.pop(name, None)
            sys.modules.pop(name, None)
