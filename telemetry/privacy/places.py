"""Places and addresses: where somebody is, as rules.

Rules:
- A path is absolute by where it starts: a root, a drive, a server, somebody's home. It
  ends where a quotation, a list, a sentence or a line ends.
- In free text only: addresses of machines, and long random strings.

It opens nothing: whether a path exists makes no difference. Patterns: see `rules`.
"""

from __future__ import annotations

from telemetry.privacy.plain import RUN_MIN
from telemetry.privacy.rules import ENDS, Rule


PATH, QUERY, USER, EMAIL = "<path>", "<query>", "<user>", "<email>"
IP, RANDOM = "<ip>", "<random>"

# Where scripts start that put no blanks around words: Chinese, Japanese, Korean.
UNSPACED = "\u2e80"

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
    Rule("query", _RFC, r"\?(?P<value>[\w.%\[\]~\-]{1,64}=(?:[^\s<>\"']*[^\s<>\"'.,;:!?)\]}`])?)",
        holds=("?",), also=("=",), label=QUERY),
    # Any run of characters, so that no run is looked at twice, and the domain.
    # A name with blanks is quoted.
    Rule("e-mail", "RFC 5322", rf"(?:\"[^\"@\s]{{1,32}} [^\"@\r\n]{{1,32}}\"(?=@)"
        rf"|[^{ENDS}@()\[\]{{}},;:/\\=&?#]+)"
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
