"""The shapes of places: paths, URLs, addresses of people and of machines.

Rules: those of `patterns`. A path is absolute by where it starts, and ends where a
quotation, a list, a sentence or a line ends.

It searches nothing by itself.
"""

from __future__ import annotations

from telemetry.privacy.patterns import ANY_CASE, ENDS, Pattern


# -- Paths -------------------------------------------------------------------

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

# `<user>/x` was relative before the name was cut out.
_NO_PLACEHOLDER = "".join(
    f"(?<!<{name}>/)" for name in ("path", "user", "email", "secret", "ip", "random")
)
# A slash is absolute unless it follows a name, a dot, a star, another slash; after
# `-I` it is. `://` is no path.
POSIX_PATH = Pattern(
    r"/(?:(?<![\w.~*+\-)\]}\\/]/)" + _NO_PLACEHOLDER + r"(?!(?<=[A-Za-z0-9]:/)/)"
    r"|(?<=\s-[A-Za-z]/)|(?<=^-[A-Za-z]/))"
    rf"/*(?:[^{ENDS}/\\*?=,;:&!()\[\]{{}}^]|(?=[(\[{{])){_POSIX_REST}"
)
# A known directory at the root is certain after these too, and after a letter of a
# script that puts no blanks around words; the caller sees to that one.
ROOTED_PATH = Pattern(
    r"/(?:home|Users|root|tmp|var|etc|usr|opt|mnt|media|private|Volumes|proc|srv)/"
    + _POSIX_REST
)
ROOTED_AFTER = frozenset(")]}*+-")
UNSPACED = "\u2e80"  # where those scripts start: Chinese, Japanese, Korean
WINDOWS_PATH = Pattern(
    rf"(?:(?<![A-Za-z0-9])[A-Za-z]:{_SEPARATOR}(?=[^{ENDS}\\/*?])"
    r"(?:Documents and Settings(?=[\\/]))?"
    rf"|(?<![\w\\])\\{{2,8}}(?:[?.]{_SEPARATOR}(?:[A-Za-z]:)?|[\w.$\-]{{2,64}}\\{{1,4}}(?=\w))"
    rf"|(?<![\w\\.])\\{{1,4}}(?:Users|home|Documents and Settings)\\{{1,4}})"
    + WINDOWS_REST,
    ANY_CASE,
)
# `~/x`, `~alice/x`, `$HOME/x`, `%APPDATA%\x`, and `../../home/x`.
HOME_PATH = Pattern(
    r"(?:(?<![\w~./\\\-])~[\w.\-]{0,64}|\$\{?(?:env:)?(?:HOME|USERPROFILE|TE?MP(?:DIR)?"
    r"|(?:LOCAL)?APPDATA|XDG_[A-Z]{4,7}_(?:HOME|DIR))\}?"
    r"|%(?:USERPROFILE|HOMEPATH|(?:LOCAL)?APPDATA|TE?MP)%"
    rf"|(?<=\.\.[\\/])(?:home|Users|root))"
    rf"{_SEPARATOR}(?=[^{ENDS}\\/]){WINDOWS_REST}"
)
FILE_URL = Pattern(rf"\b(?:file:(?=[\\/])|(?:smb|cifs|nfs|afp)://)[^{ENDS}]*", ANY_CASE)
URL_PATH_HOME = Pattern(r"/(?:home|Users|root)/[^/\s]")
CLOSING_TAG = Pattern(r"/[A-Za-z][\w\-]*")


# -- URLs and addresses ------------------------------------------------------

# Authority, path, query with fragment. A quote ends the query only where text
# behind it reads like the end of a quotation.
AUTHORITY = Pattern(r"(?:(?!://)[^\s/?#\\<>\"'`])*")
URL = Pattern(
    rf"://(?P<authority>{AUTHORITY.source})"
    r"(?P<path>(?:(?!://)[^\s?#<>\"'`])*)"
    r"(?P<query>[?#](?:[^\s<>\"'`]|[\"'`](?![\s,:;.)\]}>\"'`]|$))*)?"
)
# Addresses that let in whoever knows them.
WEBHOOK = Pattern(
    r"(?:hooks\.slack\.com/(?:services|workflows|triggers)"
    r"|discord(?:app)?\.com/api(?:/v\d+)?/webhooks"
    r"|webhook\.office\.com/webhookb2|api\.telegram\.org)/"
    rf"(?P<value>[^{ENDS}?#]+)"
)
SEGMENT = Pattern(r"[A-Za-z0-9_\-]{20,}")
BARE_QUERY = Pattern(r"\?(?P<value>[\w.%\[\]~\-]{1,64}=[^\s<>\"']*)")
# Any run of characters, so that no run is looked at twice, and the domain behind.
EMAIL = Pattern(
    rf"[^{ENDS}@()\[\]{{}},;:/\\=&?#]+"
    r"(?P<domain>@(?:(?:[\w\-]+\.)+[^\W\d_]{2,}|localhost(?![\w.])"
    r"|\[[0-9A-Fa-f:.]+\]|\d{1,3}(?:\.\d{1,3}){3}|[\w\-]+(?=:[/~:])))?"
)
IPV4 = Pattern(
    r"(?:(?<![0-9A-Za-z])(?<!\d\.)(?:\d{1,3}\.){3}\d{1,3}(?![0-9A-Za-z]|\.\d)"
    r"|(?<![A-Za-z])(?:ip|ec2)-\d{1,3}(?:-\d{1,3}){3}(?!\d))"
    r"(?::\d{1,5}(?!\d))?(?:/\d{1,2}(?!\d))?"
)
IPV6 = Pattern(
    r"(?<![0-9A-Za-z_.])(?<!::)"
    r"(?P<groups>(?:[0-9A-Fa-f]{1,4}:|:(?=:))(?:[0-9A-Fa-f]{0,4}:){1,6}"
    r"(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{1,4}|(?<=::)))"
    r"(?![0-9A-Za-z_])(?:%\w{1,16})?(?:\]:\d{1,5})?(?:/\d{1,3})?"
)

# A network card's, as Windows writes it; a date has no letters.
HARDWARE = Pattern(
    r"(?<![\w\-])(?=[0-9\-]{0,16}[a-f])(?:[0-9a-f]{2}-){5}[0-9a-f]{2}(?![\w\-])",
    ANY_CASE,
)
