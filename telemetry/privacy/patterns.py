"""The shapes of secrets, and what every regular expression here costs.

Rules:
- Compiled when first needed, one by one: all together cost some 10 ms, which no
  launch should pay. A finder asks for one only after a cheap look at the text.
- Linear time. No pattern starts in the middle of what it would eat: either a
  literal or a look behind stops it, or the repetition is bounded. Nested
  repetitions have nothing in common. (Atomic groups need Python 3.11.)
- A key, a UUID, a random string has a digit or a capital: `sk-learn-contrib` is no
  key. The quick look leans on that when it calls a text of small letters clean.

Prefixes are the makers' own, as their documentation and the public rule sets of
secret scanners give them. It searches nothing by itself.
"""

from __future__ import annotations

import re


class Pattern:
    """A regular expression that is compiled at its first use."""

    __slots__ = ("_compiled", "_flags", "source")

    def __init__(self, source: str, flags: int = 0) -> None:
        self.source = source
        self._flags = flags
        self._compiled: re.Pattern[str] | None = None

    @property
    def regex(self) -> re.Pattern[str]:
        compiled = self._compiled
        if compiled is None:
            # Two threads may both compile; they get the same thing.
            compiled = self._compiled = re.compile(self.source, self._flags)
        return compiled


ANY_CASE = re.IGNORECASE.value

# What neither a path nor a bare value goes across.
ENDS = r"\s\"'`<>|"


# -- Keys and tokens ---------------------------------------------------------

_HAS = r"(?=[A-Za-z0-9_\-]{0,40}[0-9A-Z])"
_MORE = r"(?:[.+/=~]{1,2}[A-Za-z0-9_\-]+)*=*"
_NOT_INSIDE = r"(?<![A-Za-z0-9])"

# These prefixes are nothing else, wherever they stand; eight characters suffice,
# so that keys cut short in a message are found too.
_CERTAIN = (
    r"gh[pousr]_|github_pat_|gl(?:pat|ptt|dt|rt|cbt|ft|soat|agent|oas|imt|ffct)-"
    r"|xox[abeoprs]-|xapp-|[rsp]k_(?:live|test|prod)_|whsec_|sq0[a-z]{3}-"
    r"|dckr_[op]at_|do[opr]_v1_|shp(?:at|ca|pa|ss)_|lin_(?:api|oauth)_|sntry[su]_"
    r"|fm[12][a-z]?_|fo1_|HRKU-|rubygems_|pypi-|CLOJARS_|pscale_(?:tkn|pw|oauth)_"
    r"|sk-(?:ant|proj|svcacct|admin|or|lf)-|pk-lf-|lsv2_[ps][kt]_|nvapi-|pplx-|tvly-"
    r"|sb_secret_|gl(?:sa|c)_|figd_|CCIPAT_|CFPAT-|bkua_|pcsk_|GOCSPX-|PMAK-|tskey-"
    r"|NR(?:AK|JS|II|AL)-|xkeysib-|xsmtpsib-|AGE-(?:SECRET-KEY|PLUGIN)-"
    r"|SG\.|ya29\.|hv[bsr]\.|dt0[a-z]\d\d\.|dp\.(?:pt|st|ct|sa|scim|audit)\."
    r"|tgp_v1_|llx-|csk-|KGAT_|mdb_sa_(?:id|sk)_|apify_api_"
    r"|pylf_v\d_|hc[abx]ik_|xaa[pt]-|dbt[cu]_|packagist_|SWMTKN-|FLWSECK|rzp_(?:live|test)_"
    r"|shippo_(?:live|test)_|duffel_(?:live|test)_|ops_eyJ|glwt-"
)
# These could end a word or start a name: at its beginning only, and longer.
_LIKELY = (
    rf"(?:sk-|xai-){_HAS}[A-Za-z0-9_\-]{{12,}}"
    rf"|(?:hf|npm|gsk|r8|nfp|rnd|ntn|e2b|sbp|ph[cx]|sq[pua]|api_org|secret)_{_HAS}"
    r"[A-Za-z0-9]{16,}"
    r"|(?:AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AROA)[A-Z0-9]{12,}"
    r"|(?:AIza|ATATT3|ATCTT3|ATBB)[A-Za-z0-9_\-]{16,}"
    r"|(?:LTAI|ABSK|AKID|AKLT|AKCp)[A-Za-z0-9+/]{16,}"
    rf"|(?:(?:re|fw|tfp|ddp|pnu|esecret|vc[kp]|napi|jina|rpa|rdme|zpka|sgp)_|sess-){_HAS}[A-Za-z0-9]{{16,}}[A-Za-z0-9_\-]*"
    r"|sl\.[A-Za-z0-9_\-]{40,}|EAA[A-Za-z0-9]{40,}|GR1348941[A-Za-z0-9_\-]{16,}"
)
# These have a length or an alphabet that tells them apart.
_EXACT = (
    r"(?:SK|AC)[0-9a-f]{32}(?![0-9a-f])|sk_[0-9a-f]{48}(?![0-9a-f])|1//0[A-Za-z0-9_\-]{20,}"
    r"|(?:dapi|key-|fc-|pul-)(?=[a-f]{0,31}[0-9])[0-9a-f]{32}(?:-\d|[0-9a-f]{8})?"
    r"|pat[A-Za-z0-9]{14}\.(?=[a-f]{0,63}[0-9])[0-9a-f]{64}|sha256~[A-Za-z0-9_\-]{40,}"
    r"|MII[A-Za-z0-9+/]{40,}={0,2}|AAAA(?:[BC]3NzaC1|E2VjZHNh|G[a-z]NrL)"
    # ... and whose it is
    r"[A-Za-z0-9+/]{16,}={0,3}(?: [^\s@]{1,64}@[\w.\-]{1,64})?"
)
TOKEN = Pattern(
    rf"(?:(?:{_CERTAIN}){_HAS}[A-Za-z0-9_\-]{{8,}}"
    rf"|eyJ[A-Za-z0-9_\-]{{9,}}"
    rf"|{_NOT_INSIDE}(?:{_LIKELY})){_MORE}"
    rf"|{_NOT_INSIDE}(?:{_EXACT})"
)
# How each of them starts. Literals in front: the engine skips what none starts with.
TOKEN_HEAD = Pattern(
    r"gh[pousr]_|github_pat_|gl(?=[a-z]{1,6}[\-_])|gsk_|xox|xapp-|xaa|xai-|xkeysib-|xsmtpsib-"
    r"|sk[\-_]|rk_|pk[\-_]|whsec_|sq[0pua]|dckr_|do[opr]_|dapi|dt0|dp\.|shp|sha256~"
    r"|lin_|sntry|secret_|sbp_|sb_|fm[12]|fo1_|fc-|figd_|HRKU-|rubygems_|rnd_|r8_"
    r"|pypi-|pscale_|pplx-|pcsk_|ph[cx]_|pat|pul-|CLOJARS_|CCIPAT_|CFPAT-|lsv2_|nvapi-"
    r"|npm_|nfp_|ntn_|tvly-|tskey-|bkua_|GOCSPX-|PMAK-|NR[AJI]|AGE-|A[KSBCGIRTA]|SG\."
    r"|SK|ya29|hv[bsr]\.|hf_|e2b_|api_org_|key-|LTAI|MII|eyJ|1//0|vc[kp]_|napi_|tgp_"
    r"|jina_|llx-|csk-|rpa_|KGAT_|mdb_|apify_|pylf_|hc[abx]ik_|dbt[cu]_|packagist_|SWM"
    r"|FLW|rzp_|shippo_|duffel_|rdme_|zpka_|sgp_|ops_|re_|fw_|tfp_|ddp_"
    r"|pnu_|esecret_|sess-|sl\.|EAA|GR1"
)
# These start with nothing of their own.
HEADLESS = Pattern(
    _NOT_INSIDE + r"(?:\d{8,10}:[A-Za-z0-9_\-]{34,36}(?![A-Za-z0-9_\-])"
    r"|[0-9a-f]{32}-us\d{1,2}|[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_\-]{40,}"
    r"|[MNO][A-Za-z0-9_\-]{22,27}\.[A-Za-z0-9_\-]{6}\.[A-Za-z0-9_\-]{27,40}"
    r"|[A-Za-z0-9_.~\-]{3}8Q~[A-Za-z0-9_.~\-]{28,40})"
)
# Forty characters of base64: how AWS writes its secret keys. Judged besides.
FORTY = Pattern(r"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
PEM_EDGE = Pattern(
    # Twelve characters at least, as of any key.
    r"-----(?P<edge>BEGIN(?= [A-Z0-9])|END(?= [A-Z0-9 ]{3}))[ A-Z0-9]{1,64}(?:-----)?"
)

_NAME = (
    r"(?:pass(?:word|wort|wd|phrase|code)|(?<![a-z])pwd|secrets?|(?<![a-z])creds?"
    r"|kennwort|contrase[n\u00f1]a|mot de passe|(?<![a-z])senha"
    r"|\u043f[\u0430a][\u0440p][\u043eo]\u043b\u044c|\u5bc6[\u7801\u78bc]|\u30d1\u30b9\u30ef\u30fc\u30c9"
    r"|token(?!s|[ _\-]?(?:count|limit|usage|budget|type)|i[sz])"
    r"|(?:api|access|account|private|shared|signing|encryption|master|license"
    r"|subscription|storage|admin|auth|deploy)[ _\-]?(?:access[ _\-]?)?key"
    r"|credentials?|(?<=_)auth(?![a-z])|(?:(?<![a-z])|access[ _\-]?)sig(?:nature)?(?![a-z])"
    r"|(?-i:_(?:KEY|PASS|PAT|PWD)(?![A-Za-z])))"
    # TokenError: what follows is a message
    r"(?!\w{0,40}(?:error|exception|warning))[\w\-]{0,48}(?![\w\-])"
)
# `pass=3` counts tests.
_SHORT = r"|(?<![a-z])(?:pass|pw)(?==(?!\d+(?!\w)|true|false))"
SECRET_KEY = Pattern(rf"(?:{_NAME}|authorization|cookie2?)\Z", ANY_CASE)
_EQUALS = (
    r"(?:(?: is|(?<=password))[ \t](?=(?:[A-Za-z]{1,40}\d|\d{1,40}[A-Za-z])\S{4})"  # `the password is x1…`
    r"|\\*[\"'`]?\]?\s{0,4}(?:[:=]=|[=-]>|=|:(?!:|//)"
    # XML; `<secret>` is ours unless something closes it.
    r"|(?<!<secret)>(?=[^\s<])|(?<=<secret)>(?=[^\s<][^<>]{0,64}</))\s{0,4})"
)
_VALUE = (
    r"(?:\"(?P<double>[^\"\\\r\n]*(?:\\.[^\"\\\r\n]*)*)"
    r"|'(?P<single>[^'\\\r\n]*(?:\\.[^'\\\r\n]*)*)"
    r"|`(?P<back>[^`\r\n]*)"
    r"|\\+[\"'](?P<escaped>[^\"'\\\r\n]*(?:\\+[^\"'\\\r\n]+)*)"
    r"|(?P<bare>[^\s<\"'`][^\s<]*))"
)
# password=x, "token": "x", API_KEY = 'x', <secret>x
NAMED = Pattern(f"(?:{_NAME}{_SHORT}){_EQUALS}{_VALUE}", ANY_CASE)
# --password x, -token x: the caller sees to the dash. password "x", and the list
# that a failed subprocess quotes: ['--password', 'x']
OPTION = Pattern(
    rf"(?:{_NAME}|(?<=-)(?:pass|pw)(?![\w\-]))"
    rf"(?:[ \t]{{1,4}}|\\{{0,3}}[\"'],\s{{0,4}}(?=\\{{0,3}}[\"']))(?!-){_VALUE}",
    ANY_CASE,
)
# A line of .netrc, and a command that takes a password by a short option.
ACCOUNT = Pattern(
    r"(?:\blogin\s{1,4}\S{1,64}\s{1,4}password\s{1,4}|\bsshpass\s{1,4}-p\s{0,4})"
    r"(?P<value>[^\s<]+)",
    ANY_CASE,
)
# user=x, "username": "x", User ID=x; what is no name (a number, True) stays.
_PERSON = r"(?!true\b|false\b)[^\W\d][\w.@\\\-]{2,63}"
USER_NAME = Pattern(
    r"(?<![A-Za-z])(?:(?:user(?:[ _\-]?(?:name|id))?|login|logname)\s?==?\s?[\"']?"
    rf"(?P<value>{_PERSON})(?![\w(])"
    r"|(?:user(?:[ _\-]?name)?|logname)\\*[\"']\s?:\s?\\*[\"']"
    rf"(?P<quoted>[^\W\d][\w.\-]{{2,63}})(?=\\*[\"']))",
    ANY_CASE,
)
# bob:pass@host:22, bob:pass@tcp(host)
BARE_ACCOUNT = Pattern(
    r"(?<![\w/@.\-])(?P<value>[\w.\-]{1,64}:[^\s:/@\"'<>]{2,128})"
    r"@(?=(?:tcp|unix)\(|[\w.\-]{1,64}:\d{2,5}\b)"
)
HEADER = Pattern(
    r"(?:authorization|cookie2?)\\*[\"']?\s{0,4}[:=]\s{0,4}\\*[\"']?"
    r"(?P<value>(?:bearer|basic|token|apikey|negotiate|ntlm)\s+[^\s\"',<]+"
    r"|[^\s\"'<][^\r\n\"'<]*)",
    ANY_CASE,
)
SCHEME = Pattern(
    r"(?i:\b(?:bearer|basic))[ \t]{1,4}"
    r"(?P<value>(?=[^\s\"'<]{0,80}?(?:[0-9+/=]|[a-z][A-Z]))[A-Za-z0-9._~+/=\-]{8,})"
)
USER_OPTION = Pattern(
    r"(?<![\w\-])(?:-u|--(?:proxy-)?user)(?:[ =]{1,4}[\"']?|[\"'],\s{0,4}[\"'])"
    r"(?P<value>[^\s:\"'<]+:[^\s\"'<]+)"
)


# -- Random strings ----------------------------------------------------------

UUID = Pattern(
    r"(?<![0-9A-Za-z])(?=[a-f\-]{0,35}[0-9])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![0-9A-Za-z])",
    ANY_CASE,
)
LONG_RUN = Pattern(r"[A-Za-z0-9+/_\-]{20,}={0,2}")
