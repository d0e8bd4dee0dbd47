"""Names and places: who and where somebody is, as rules.

Rules:
- A path is absolute by where it starts: a root, a drive, a server, somebody's home. It
  ends where a quotation, a list, a sentence or a line ends.
- A user's name is searched for if it has three letters at least and is no everyday
  word, no number and no account of a system. A home has two components at least:
  `/root` and `/` stand in many texts.
- In free text only: addresses of machines, and long random strings.

It opens nothing: whether a path exists makes no difference. Patterns: see `rules`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemetry.privacy.rules import ENDS, Rule


if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PATH, QUERY, USER, EMAIL = "<path>", "<query>", "<user>", "<email>"
IP, RANDOM = "<ip>", "<random>"

# What counts as a long random string in free text, in characters.
RUN_MIN = 20

# Where scripts start that put no blanks around words: Chinese, Japanese, Korean.
UNSPACED = "\u2e80"

# -- The user of this machine -------------------------------------------------

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
    environment: Mapping[str, str], platform: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The homes and the user names that an environment names, each one once.

    Args:
        environment: variables by name, as in `os.environ`.
        platform: `sys.platform`.

    Returns:
        The homes; then the names: USER and its kin, and each home's last component.
        They are as the environment has them.
    """
    homes = [environment.get("HOME", ""), environment.get("USERPROFILE", "")]
    if environment.get("HOMEPATH"):
        homes.append(environment.get("HOMEDRIVE", "") + environment["HOMEPATH"])
    users = [environment.get(name, "") for name in _USER_VARIABLES]
    # Elsewhere a backslash is a letter.
    users += (
        last_component(home)
        if platform == "win32"
        else home.rstrip("/").rpartition("/")[2]
        for home in homes
    )
    return once(homes), once(users)


def once(values: Iterable[str]) -> tuple[str, ...]:
    """Each of them once, in order, without the empty ones."""
    return tuple(dict.fromkeys(filter(None, values)))


# -- Paths --------------------------------------------------------------------

_PLAIN = rf"[^{ENDS}:,;()\[\]{{}}\\]"
_INSIDE = (
    rf"[,;](?=[^{ENDS}/\\,;])"  # a comma in a name, not one between two paths
    rf"|\([^{ENDS}()]{{0,200}}\)"
    rf"|\[[^{ENDS}\[\]]{{0,200}}\]"
    rf"|\{{[^{ENDS}{{}}]{{0,200}}\}}"
)
_POSIX_REST = rf"{_PLAIN}*(?:(?:{_INSIDE}|\\[ ()&'\[\]]){_PLAIN}*)*"
WINDOWS_REST = rf"{_PLAIN}*(?:(?:{_INSIDE}|\\){_PLAIN}*)*"
_SEPARATOR = r"[\\/]{1,8}"
_POSIX_TAIL = rf"/*(?:[^{ENDS}/\\*?=,;:&!()\[\]{{}}^]|(?=[(\[{{])){_POSIX_REST}"
# `<user>/x` was relative before the name was cut out.
_NO_LABEL = "".join(
    f"(?<!<{name}>/)" for name in ("path", "user", "email", "secret", "ip", "random")
)
# What a slash does not start a path after: names, dots, stars, closing brackets.
_NOT_AFTER = r"\w.~*+\-)\]}\\/"
# What it does start one after; a line's end stands for the start of a text.
_AFTER = "\n !\"#$%&'(,:;<=>?@[^`{|"

_ROOTS = (
    *("home", "Users", "root", "tmp", "var", "etc", "usr", "opt", "mnt", "media"),
    *("private", "Volumes", "proc", "srv"),
)

_HIER = "filesystem hierarchy standard"
_WINDOWS = "learn.microsoft.com/windows/win32/fileio/naming-a-file"
_RFC = "RFC 3986"

# fmt: off
PATHS = (
    Rule("path",  # `://` is no path
        _HIER,
        rf"/(?<![{_NOT_AFTER}]/){_NO_LABEL}(?!(?<=[A-Za-z0-9]:/)/){_POSIX_TAIL}",
        holds=tuple(f"{before}/" for before in _AFTER), label=PATH),
    Rule("path of an option",  # -I/usr/include
        "gcc.gnu.org/onlinedocs",
        rf"(?:(?<=\s-[A-Za-z])|(?<=^-[A-Za-z]))/{_POSIX_TAIL}", holds=(" -", "\n-"),
        also=("/",), label=PATH),
    # A known directory is certain behind these too, and behind a letter of a
    # script that puts no blanks around words.
    Rule("path at the root", _HIER,
        rf"(?<=[)\]}}*+\-{UNSPACED}-\U0010ffff])/(?:{'|'.join(_ROOTS)})/" + _POSIX_REST,
        holds=tuple(f"/{name}/" for name in _ROOTS), label=PATH),
    Rule("path of Windows", _WINDOWS,
        rf"(?i)(?:(?<![A-Za-z0-9])[A-Za-z]:{_SEPARATOR}(?=[^{ENDS}\\/*?])"
        r"(?:Documents and Settings(?=[\\/]))?"
        rf"|(?<![\w\\])\\{{2,8}}(?:[?.]{_SEPARATOR}(?:[A-Za-z]:)?"
        r"|[\w.$\-]{2,64}\\{1,4}(?=\w))"
        r"|(?<![\w\\.])\\{1,4}(?:Users|home|Documents and Settings)\\{1,4})"
        + WINDOWS_REST, holds=("\\", ":/"), label=PATH),
    Rule("path of a home",  # `~/x`, `~alice/x`, `$HOME/x`, `%APPDATA%\x`, `../../home/x`
        "POSIX, section 2.6.1", r"(?:(?<![\w~./\\\-])~[\w.\-]{0,64}"
        r"|\$\{?(?:env:)?(?:HOME|USERPROFILE|TE?MP(?:DIR)?"
        r"|(?:LOCAL)?APPDATA|XDG_[A-Z]{4,7}_(?:HOME|DIR))\}?"
        r"|%(?:USERPROFILE|HOMEPATH|(?:LOCAL)?APPDATA|TE?MP)%"
        rf"|(?<=\.\.[\\/])(?:home|Users|root)){_SEPARATOR}(?=[^{ENDS}\\/]){WINDOWS_REST}",
        holds=("~", "$", "%", ".."), also=("/", "\\"), label=PATH),
    Rule("URL of a file", "RFC 8089",
        rf"(?i)\b(?:file:(?=[\\/])|(?:smb|cifs|nfs|afp)://)[^{ENDS}]*",
        holds=("file:/", "file:\\", "smb://", "cifs://", "nfs://", "afp://"),
        any_case=True, label=PATH),
)
# fmt: on

# -- URLs and addresses -------------------------------------------------------

AUTHORITY = r"(?:(?!://)[^\s/?#\\<>\"'`])*"
# fmt: off
ADDRESSES = (
    # Authority, path, query with fragment. A quote ends the query only where the
    # text behind it reads like the end of a quotation.
    Rule("URL", _RFC, rf"://(?P<authority>{AUTHORITY})"
        r"(?P<path>(?:(?!://)[^\s?#<>\"'`])*)"
        r"(?P<query>[?#](?:[^\s<>\"'`]|[\"'`](?![\s,:;.)\]}>\"'`]|$))*)?",
        holds=("://",)),
    Rule("query", _RFC, r"\?(?P<value>[\w.%\[\]~\-]{1,64}=[^\s<>\"']*)", holds=("?",),
        also=("=",), label=QUERY),
    # Any run of characters, so that no run is looked at twice, and the domain.
    Rule("e-mail", "RFC 5322", rf"[^{ENDS}@()\[\]{{}},;:/\\=&?#]+"
        r"(?P<domain>@(?:(?:[\w\-]+\.)+[^\W\d_]{2,}|localhost(?![\w.])"
        r"|\[[0-9A-Fa-f:.]+\]|\d{1,3}(?:\.\d{1,3}){3}|[\w\-]+(?=:[/~:])))?",
        holds=("@",), label=EMAIL),
    # user=x, "username": "x", User ID=x; what is no name (a number, True) stays.
    Rule("user name", "learn.microsoft.com/dotnet connection strings",
        r"(?i)(?<![A-Za-z])(?:(?:user(?:[ _\-]?(?:name|id))?|login|logname)\s?==?\s?"
        r"[\"']?(?P<value>(?!true\b|false\b)[^\W\d][\w.@\\\-]{2,63})(?![\w(])"
        r"|(?:user(?:[ _\-]?name)?|logname)\\*[\"']\s?:\s?\\*[\"']"
        r"(?P<quoted>[^\W\d][\w.\-]{2,63})(?=\\*[\"']))",
        holds=("user", "login", "logname"), also=("=", ":"), any_case=True,
        label=USER),
)

# -- In free text only --------------------------------------------------------

FREE = (
    Rule("IPv4", "RFC 791",
        r"(?<![0-9A-Za-z])(?<!\d\.)(?:\d{1,3}\.){3}\d{1,3}(?![0-9A-Za-z]|\.\d)"
        r"(?::\d{1,5}(?!\d))?(?:/\d{1,2}(?!\d))?", holds=(".",), times=3, label=IP,
        free=True),
    Rule("host of a cloud",  # ec2-203-0-113-77
        "docs.aws.amazon.com/vpc",
        r"(?<![A-Za-z])(?:ip|ec2)-\d{1,3}(?:-\d{1,3}){3}(?!\d)",
        holds=("ip-", "ec2-"), label=IP, free=True),
    Rule("IPv6", "RFC 4291", r"(?<![0-9A-Za-z_.])(?<!::)"
        r"(?P<groups>(?:[0-9A-Fa-f]{1,4}:|:(?=:))(?:[0-9A-Fa-f]{0,4}:){1,6}"
        r"(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{1,4}|(?<=::)))"
        r"(?![0-9A-Za-z_])(?:%\w{1,16})?(?:\]:\d{1,5})?(?:/\d{1,3})?", holds=(":",),
        times=2, label=IP, free=True),
    Rule("network card",  # as Windows writes it; a date has no letters
        "IEEE 802",
        r"(?i)(?<![\w\-])(?=[0-9\-]{0,16}[a-f])(?:[0-9a-f]{2}-){5}[0-9a-f]{2}(?![\w\-])",
        holds=("-",), times=5, label=IP, free=True),
    Rule("UUID", "RFC 9562", r"(?i)(?<![0-9A-Za-z])(?=[a-f\-]{0,35}[0-9])"
        r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![0-9A-Za-z])", holds=("-",),
        word_min=36, label=RANDOM, free=True),
    Rule("random run",  # judged besides
        "RFC 4648", rf"[A-Za-z0-9+/_\-]{{{RUN_MIN},}}={{0,2}}", word_min=RUN_MIN,
        label=RANDOM, free=True),
)
# fmt: on
