"""What is known without the rules: whom to search for, and texts that are plainly clean.

Rules:
- A user's name is searched for if it has three letters at least and is no everyday
  word, no number and no account of a system. A home has two components at least:
  `/root` and `/` stand in many texts.
- Plain are most names of commands and flags: small letters, blanks and hyphens, and no
  word that announces a secret. All else is looked at by the `rules`, which take a start
  as long as the rest of this package.
"""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SECRET = "<secret>"  # noqa: S105  # what stands in its place

# Each name of a secret has one of these in it.
SECRET_WORDS = (
    *("pass", "pw", "secret", "token", "key", "cred", "auth", "_pat", "sig"),
    *("kennwort", "contrase", "mot de", "senha", "\u043b\u044c", "\u5bc6", "\u30d1"),
)

# A long random string has so many characters at least, a hardware address so many
# hyphens: `ab-cd-ef-ab-cd-ef`.
RUN_MIN = 20
_HYPHENS_MIN = 5
_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyz -")

# Texts found clean are remembered up to this length, so many: names of commands, models
# and tools recur, messages do not. 256 KiB at most.
_REMEMBERED_CHARS_MAX = 128
_REMEMBERED_MAX = 1024


def remember(
    known: dict[str, bool],
    text: str,
    *,
    found: bool = True,
    always: tuple[str, ...] = (),
) -> None:
    """Keep what was found of a text, where it is short; those in `always` stay."""
    if len(text) <= _REMEMBERED_CHARS_MAX:
        if len(known) >= _REMEMBERED_MAX:
            # What recurs comes back; keeping an order would cost every lookup.
            known.clear()
            known.update(dict.fromkeys(always, True))
        known[text] = found


def is_plain(text: str) -> bool:
    """Whether no rule can match the text. It may say no of a text that none matches."""
    return (
        len(text) < RUN_MIN
        and _SIGNS.issuperset(text)
        and text.count("-") < _HYPHENS_MIN
        and not any(map(text.__contains__, SECRET_WORDS))
    )


# -- The user -----------------------------------------------------------------

_USER_VARIABLES = ("USER", "LOGNAME", "USERNAME", "SUDO_USER")

# Below this many letters, a name is found inside everything.
_NAME_MIN = 3

# Names that are no person's: accounts of systems and images, words of our own
# events, families of models, and words of everyday English that are also names.
_WORDS = """
    admin administrator agent alpine anonymous ansible api apache app application arch
    args azureuser backup base bash beta bin bot build builder buildkite bundle cache
    cagent call chat circleci claude cli client cloud code codespace command computer
    config container core data database debian default demo deploy deployer desktop
    dev developer development docker email end error event example fedora file flag
    ftp gemini git github gitlab gitpod gpt group guest home host hostname http https
    image info jenkins job jovyan kubernetes laptop linux llama local localhost log
    login mac mail main master mcp me mistral model mysql name new nginx nobody node
    none null office ollama openai operator oracle owner password path personal
    postgres private prod production program project public python query random redis
    release remote root run runner scrubbed secret self server service session shared
    shell snap source src ssh staff start static sudo super superuser support sys
    system team telemetry temp test tester testing time tmp token tool travis ubuntu
    unknown user username users vagrant var version vscode web windows work worker
    workspace www art bill chase dean drew faith frank grace grant guy hope jack joy
    june lane mark max may mike page pat rich rob rose ruby sage skip sue summer will
"""
_NOT_PERSONAL = frozenset(_WORDS.split())


def searchable_name(user: str) -> str:
    """The name in lower case, its parts divided by blanks; empty if it is too common.

    Without a domain: `alice` of `CORP\\alice` and of `alice@corp`.
    """
    name = user.replace("\\", "/").rpartition("/")[2].partition("@")[0]
    for sign in "._-":
        name = name.replace(sign, " ")
    name = " ".join(name.lower().split())
    # user1 and dev-02 are as common as user and dev; 1000 is a number.
    letters = name.rstrip("0123456789 ")
    common = not letters or letters in _NOT_PERSONAL
    return "" if common or len(name) < _NAME_MIN else name


def searchable_home(home: str) -> str:
    """The home in lower case; empty if it is no directory of a person."""
    home = home.lower().rstrip("/\\")
    absolute = home.startswith(("/", "\\")) or home[1:2] == ":"
    parts = home.replace("\\", "/").split("/")
    return home if absolute and len(list(filter(None, parts))) > 1 else ""


def last_component(path: str) -> str:
    """The name at the end of a path of Windows or Unix; empty for a root."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def identity_from(
    environment: Mapping[str, str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The homes and the user names that an environment names, each one once.

    Args:
        environment: variables by name, as in `os.environ`.

    Returns:
        The homes; then the names: USER and its kin, and each home's last component.
        They are as the environment has them.
    """
    homes = [environment.get("HOME", ""), environment.get("USERPROFILE", "")]
    if environment.get("HOMEPATH"):
        homes.append(environment.get("HOMEDRIVE", "") + environment["HOMEPATH"])
    users = [environment.get(name, "") for name in _USER_VARIABLES]
    return once(homes), once((*users, *map(last_component, homes)))


def once(values: Iterable[str]) -> tuple[str, ...]:
    """Each of them once, in order, without the empty ones."""
    return tuple(dict.fromkeys(filter(None, values)))
