"""What to look for before looking closely: cheap signs that a text may hold a key.

Rules:
- No false negatives: a text with none of these signs holds no key that a pattern
  of `patterns` would find. Tests hold the two against each other.
- Only `in`, `len` and `split`, because this runs in every process, where compiling
  one pattern would cost a thousand times as much.

It says "maybe", never "yes".
"""

from __future__ import annotations


# No sign is needed in a word this long: keys without a prefix (AWS secrets, bot
# tokens) have at least 40 characters; a UUID has 36.
KEY_WORD_MIN = 40

# What counts as a long random string in free text.
RUN_MIN = 20

# The shortest key of known shape: four characters of prefix, eight of body.
KEY_MIN = 12

# Whoever gives a secret a name uses one of these in it.
SECRET_WORDS = ("pass", "pw", "secret", "token", "key", "cred", "auth", "sig")
# ... or one of these.
OTHER_WORDS = (
    "kennwort",
    "contrase",
    "senha",
    "\u043b\u044c",
    "\u5bc6",
    "\u30d1\u30b9",
)
SCHEME_WORDS = ("bearer", "basic")

# Signs with capitals, and those with a dash, an underscore, a dot. A text without
# the one character is spared the whole row.
_CAPITAL = (
    *("AKIA", "ASIA", "ABIA", "ACCA", "AGPA", "AIDA", "AROA", "AIza", "AAAA", "eyJ"),
    *("SK", "AC", "LTAI", "ABSK", "ATATT3", "ATCTT3", "ATBB", "8Q~", "AKID", "AKLT"),
    *("AKCp", "EAA", "GR1348941", "FLWSECK"),
)
_CAPITAL_DASH = (
    *(
        "AGE-",
        "HRKU-",
        "NRAK-",
        "NRJS-",
        "NRII-",
        "NRAL-",
        "PMAK-",
        "CFPAT-",
        "GOCSPX-",
    ),
    "-----",
)
_DASH = (
    *("sk-", "pk-lf-", "xox", "xapp-", "sq0", "pypi-", "nvapi-", "pplx-", "tvly-"),
    *("tskey-", "xkeysib-", "xsmtpsib-", "xai-", "key-", "fc-", "pul-", "-us", "llx-"),
    *("csk-", "xaa", "SWMTKN-", "sess-"),
)
_DASH_AFTER_GL = (
    *("pat-", "ptt-", "dt-", "rt-", "cbt-", "ft-", "oat-", "agent-", "oas-", "imt-"),
    *("fct-", "wt-"),
)
_UNDERSCORE = (
    *("k_live_", "k_test_", "k_prod_", "whsec_", "dckr_", "_v1_", "shp", "lin_"),
    *("sntry", "fm1", "fm2", "fo1_", "rubygems_", "pscale_", "lsv2_", "sb_secret_"),
    *("figd_", "bkua_", "pcsk_", "hf_", "npm_", "gsk_", "r8_", "nfp_", "rnd_", "ntn_"),
    *("e2b_", "sbp_", "phc_", "phx_", "sqp_", "squ_", "sqa_", "api_org_", "secret_"),
    *("glsa_", "glc_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("CLOJARS_", "CCIPAT_", "vck_", "vcp_", "napi_", "jina_", "rpa_", "KGAT_"),
    *("mdb_sa_", "apify_api_", "pylf_v", "ik_", "dbtc_", "dbtu_", "packagist_", "rzp_"),
    *("shippo_", "duffel_", "rdme_", "zpka_", "sgp_", "re_", "fw_", "tfp_", "ddp_"),
    *("pnu_", "esecret_", "tgp_v1_", "ops_eyJ"),
)
_DOT = ("ya29.", "hvs.", "hvb.", "hvr.", "dt0", "dp.", "SG.", "sl.")
_ALONE = ("dapi", "1//0", "sha256~")


def may_hold_key(text: str, low: str) -> bool:
    """Whether a key or token may stand in the text; `low` is it in lower case."""
    if len(text) < KEY_MIN:
        return False
    return (
        _holds(text, _ALONE)
        or (low != text and _holds(text, _CAPITAL))
        or (low != text and "-" in text and _holds(text, _CAPITAL_DASH))
        or ("_" in text and _holds(text, _UNDERSCORE))
        or ("-" in text and _holds(text, _DASH))
        or ("-" in text and "gl" in text and _holds(text, _DASH_AFTER_GL))
        or ("." in text and _holds(text, _DOT))
        or has_word(text, KEY_WORD_MIN)
    )


def may_be_address(text: str, low: str) -> bool:
    """Whether slashes and colons may be more than parts of names and of times.

    For texts of letters, digits, blanks and quiet signs besides: `agents/dev.yaml`,
    `docker/cagent:latest`, `10:30`.
    """
    return (
        ":/" in text
        or "-u" in text  # curl -u name:password
        or text[0] == "-"  # -I/usr/include
        or " -" in text
        or may_name_secret(low)
        or _holds(low, ("cookie", "hook", "telegram", "user", "log"))
        or not all(map(str.isalnum, [part[-1:] for part in text.split("/")[:-1]]))
    )


def may_name_secret(low: str) -> bool:
    """Whether a text, given in lower case, may say what a secret is."""
    return _holds(low, SECRET_WORDS) or _holds(low, OTHER_WORDS)


def has_word(text: str, size_min: int) -> bool:
    """Whether some word without blanks in it is at least so long."""
    return len(text) >= size_min and max(map(len, text.split()), default=0) >= size_min


def _holds(text: str, signs: tuple[str, ...]) -> bool:
    # A loop, not any(): a generator costs more than most of these searches.
    for sign in signs:  # noqa: SIM110
        if sign in text:
            return True
    return False
