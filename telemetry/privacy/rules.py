"""What is private as one table: what it is, how it looks, where that is documented.

Rules:
- A key has a digit or a capital: `sk-learn-contrib` is no key.
- A path is absolute by where it starts: a root, a drive, a server, somebody's home. It
  ends where a quotation, a list, a sentence or a line ends.
- In free text only: addresses of machines, and long random strings.
- Time is linear. No pattern starts in the middle of what it would match: a literal or
  a look behind stops it, or the repetition is bounded.
- A rule names literals, one of which is in every match. `Index` finds the rules that
  may match a text from these alone. It may name too many rules, never too few.

Loaded by the first text that is not plainly clean (`plain`). Patterns are compiled when a
text may match them (`scrub`): all together cost 10 ms, which no start should pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from telemetry.privacy.plain import RUN_MIN, SECRET, SECRET_WORDS


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PATH, QUERY, USER, EMAIL = "<path>", "<query>", "<user>", "<email>"
IP, RANDOM = "<ip>", "<random>"

# Where scripts start that put no blanks around words: Chinese, Japanese, Korean.
UNSPACED = "\u2e80"
# What neither a path nor an unquoted value contains.
ENDS = r"\s\"'`<>|"

SMALL = "abcdefghijklmnopqrstuvwxyz"
ALNUM = SMALL + SMALL.upper() + "0123456789"
# One of these is in every key.
DRAWN = (*ALNUM[26:],)


class Rule(msgspec.Struct, frozen=True):
    """One shape of something private.

    `name` is its maker or what it is, `source` says where the shape is documented.
    `pattern` matches it; where the pattern has groups, the last one that matched is
    what is private. `label` stands in its place.

    Each match needs, in the text it stands in: one of the literals `holds`, `times`
    times in all; one of the literals `also`; a word of `word_min` characters. Where
    `any_case` is set, the literals are in lower case and the case does not matter.
    `free` rules hold in free text only.
    """

    name: str
    source: str
    pattern: str
    holds: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    times: int = 1
    word_min: int = 0
    label: str = SECRET
    any_case: bool = False
    free: bool = False

    def may_match(self, text: str, low: str) -> bool:
        """Whether the text, `low` in lower case, has what each match needs."""
        where = low if self.any_case else text
        if self.times > 1:
            if sum(map(where.count, self.holds)) < self.times:
                return False
        elif self.holds and not any(map(where.__contains__, self.holds)):
            return False
        if self.also and not any(map(where.__contains__, self.also)):
            return False
        return not self.word_min or has_word(text, self.word_min)


def has_word(text: str, size_min: int) -> bool:
    """Whether some word without blanks in it has at least so many characters."""
    return len(text) >= size_min and max(map(len, text.split()), default=0) >= size_min


# -- Keys that start with something of their own ------------------------------

# maker | starts with | then | source.  Then: `u8` is eight letters, digits, `_`, `-` at
# least, and twenty letters and digits within a word: `configd_20261129` is no key. A capital
# wants the beginning of a word: `U` the same, `A` letters and digits, `B` base64, `C`
# capitals and digits, `H` hexadecimal digits. Eight suffice where nothing else starts
# so: keys cut short in a message are found too.
# Sources: a page of the maker, or the rule sets of `gitleaks` and `trufflehog`.
_KEYS = """
GitHub|ghp_ gho_ ghu_ ghs_ ghr_ github_pat_|u8|docs.github.com/authentication
GitLab|glpat- glptt- gldt- glrt- glcbt- glft- glsoat- glagent- gloas- glimt-|u8|docs.gitlab.com
GitLab features|glffct- glwt-|u8|docs.gitlab.com/security/tokens
GitLab registration|GR1348941|U16|docs.gitlab.com/security/tokens
Slack|xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs- xapp-|u8|api.slack.com/authentication
Stripe|sk_live_ sk_test_ rk_live_ rk_test_ pk_live_ pk_test_ whsec_|u8|docs.stripe.com/keys
Paddle, Clerk|sk_prod_ rk_prod_ pk_prod_|u8|trufflehog
Square|sq0|u12|developer.squareup.com
OpenAI|sk- sess-|U12|platform.openai.com
OpenAI projects|sk-proj- sk-svcacct- sk-admin-|u8|platform.openai.com
Anthropic|sk-ant-|u8|docs.anthropic.com
OpenRouter|sk-or-|u8|openrouter.ai/docs
Langfuse|sk-lf- pk-lf-|u8|langfuse.com/docs
xAI|xai-|U12|docs.x.ai
Groq|gsk_|A16|console.groq.com/docs
Hugging Face|hf_ api_org_|A16|huggingface.co/docs/hub/security-tokens
Replicate|r8_|A16|replicate.com/docs
NVIDIA|nvapi-|u8|docs.nvidia.com
Perplexity|pplx-|u8|docs.perplexity.ai
Tavily|tvly-|u8|docs.tavily.com
Together|tgp_v1_|u8|docs.together.ai
Fireworks|fw_|A16|docs.fireworks.ai
Cerebras|csk-|u8|inference-docs.cerebras.ai
Jina|jina_|A16|jina.ai/reader
LlamaCloud|llx-|u8|docs.cloud.llamaindex.ai
LangSmith|lsv2_pt_ lsv2_sk_|u8|docs.smith.langchain.com
Pinecone|pcsk_|u8|docs.pinecone.io
E2B|e2b_|A16|e2b.dev/docs
Firecrawl|fc-|H32|docs.firecrawl.dev
RunPod|rpa_|A16|docs.runpod.io
ElevenLabs|sk_|H48|elevenlabs.io/docs
Kaggle|KGAT_|u8|kaggle.com/docs/api
AWS ids|AKIA ASIA ABIA ACCA AGPA AIDA AROA|C12|docs.aws.amazon.com/IAM
AWS Bedrock|ABSK|B16|docs.aws.amazon.com/bedrock
Google API|AIza|U16|cloud.google.com/docs/authentication/api-keys
Google OAuth|ya29. GOCSPX-|u8|developers.google.com/identity
Google refresh|1//0|U20|developers.google.com/identity
Gemini|AQ.Ab8R|U16|ai.google.dev/gemini-api/docs
AWS session|FwoGZXIvYXdzE IQoJb3JpZ2lu|B16|docs.aws.amazon.com/IAM
DigitalOcean|dop_v1_ doo_v1_ dor_v1_|u8|docs.digitalocean.com
Alibaba|LTAI|B16|gitleaks
Tencent, Volcengine|AKID AKLT|B16|trufflehog
npm|npm_|A16|docs.npmjs.com
PyPI|pypi-|u8|pypi.org/help
RubyGems|rubygems_|u8|guides.rubygems.org
Packagist|packagist_|u8|packagist.com/docs
Clojars|CLOJARS_|u8|gitleaks
crates.io|cio|A32|doc.rust-lang.org/cargo
JFrog|AKCp cmVmdGtu|B16|gitleaks
Docker|dckr_pat_ dckr_oat_|u8|docs.docker.com/security
Docker Swarm|SWMTKN-|u8|docs.docker.com/engine/swarm
OpenShift|sha256~|U40|gitleaks
Vault|hvs. hvb. hvr.|u8|developer.hashicorp.com/vault/docs/concepts/tokens
Pulumi|pul-|H32|pulumi.com/docs
Doppler|dp.pt. dp.st. dp.ct. dp.sa. dp.scim. dp.audit.|u8|docs.doppler.com
1Password|ops_eyJ|u8|developer.1password.com
age|AGE-SECRET-KEY- AGE-PLUGIN-|u8|age-encryption.org
Heroku|HRKU-|u8|devcenter.heroku.com
Fly|fo1_ fm1_ fm2_ fm1a_ fm1r_ fm2a_ fm2r_|u8|fly.io/docs/security/tokens
Vercel|vcp_ vck_|A16|vercel.com/docs
Netlify|nfp_|A16|docs.netlify.com
Render|rnd_|A16|render.com/docs/api
Supabase|sbp_|A16|supabase.com/docs
Supabase secret|sb_secret_|u8|supabase.com/docs
PlanetScale|pscale_tkn_ pscale_pw_ pscale_oauth_|u8|planetscale.com/docs
Neon|napi_|A16|neon.com/docs
MongoDB Atlas|mdb_sa_id_ mdb_sa_sk_|u8|mongodb.com/docs/atlas
Databricks|dapi|H32|docs.databricks.com
dbt|dbtc_ dbtu_|u8|docs.getdbt.com
Tailscale|tskey-|u8|tailscale.com/kb
Shopify|shpat_ shpca_ shppa_ shpss_|u8|shopify.dev/docs
Linear|lin_api_ lin_oauth_|u8|linear.app/developers
Notion|ntn_ secret_|A16|developers.notion.com
Figma|figd_|u8|figma.com/developers
Frame.io|fio-u-|U60|gitleaks
Atlassian|ATATT3 ATCTT3 ATBB|U16|support.atlassian.com
Postman|PMAK-|u8|learning.postman.com
ReadMe|rdme_|A16|docs.readme.com
Zapier|zpka_|A16|gitleaks
Typeform|tfp_|A16|typeform.com/developers
Contentful|CFPAT-|u8|contentful.com/developers
Snyk|snyk_uat. snyk_sat.|U16|docs.snyk.io
Apify|apify_api_|u8|docs.apify.com
Sentry|sntrys_ sntryu_|u8|docs.sentry.io
New Relic|NRAK- NRJS- NRII- NRAL-|u8|docs.newrelic.com
Grafana|glsa_ glc_|u8|grafana.com/docs
Honeycomb|hcaik_ hcbik_ hcxik_|u8|docs.honeycomb.io
Axiom|xaat- xaapt-|u8|axiom.co/docs
Dynatrace|dt0c01. dt0s01. dt0s02. dt0s03. dt0s04. dt0s06. dt0s08. dt0s16.|u8|docs.dynatrace.com
Logfire|pylf_v1_ pylf_v2_|u8|logfire.pydantic.dev
PostHog|phc_ phx_|A16|posthog.com/docs
Datadog|ddp_|A16|docs.datadoghq.com
SonarQube|squ_ sqp_ sqa_|A16|docs.sonarsource.com
CircleCI|CCIPAT_|u8|circleci.com/docs
Buildkite|bkua_|u8|buildkite.com/docs
Sourcegraph|sgp_|A16|sourcegraph.com/docs
Prefect|pnu_|A16|docs.prefect.io
Infracost|ico-|A32|gitleaks
Scalingo|tk-us-|U40|gitleaks
Adafruit|aio_|A20|io.adafruit.com/api/docs
Yandex|t1.9euelZ|U16|yandex.cloud/docs
Yandex OAuth|y0_Ag|U40|yandex.cloud/docs
SendGrid|SG.|u8|docs.sendgrid.com
Brevo|xkeysib- xsmtpsib-|u8|developers.brevo.com
Mailgun|key-|H32|documentation.mailgun.com
Twilio|SK AC|H32|twilio.com/docs
Flutterwave|FLWSECK|u8|developer.flutterwave.com
Razorpay|rzp_live_ rzp_test_|u8|razorpay.com/docs
Shippo|shippo_live_ shippo_test_|u8|docs.goshippo.com
Duffel|duffel_live_ duffel_test_|u8|duffel.com/docs
eSecret|esecret_|A16|trufflehog
EasyPost|EZAK EZTK|A40|gitleaks
Facebook|EAA|A40|developers.facebook.com
Dropbox|sl.|U40|dropbox.com/developers
JSON Web Token|eyJ|u9|RFC 7519
DER, PEM without its frame|MII|B40|RFC 7468
"""
_HAS = r"(?=[A-Za-z0-9_\-]{0,40}[0-9A-Z])"
_MORE = r"(?:[.+/=~]{1,2}[A-Za-z0-9_\-]+)*=*"
_NOT_INSIDE = "(?<![A-Za-z0-9])"
# By the letter of the third column; `%s` is how many of them at least.
_BODIES = {
    "U": rf"{_HAS}[A-Za-z0-9_\-]{{%s,}}{_MORE}",
    "A": rf"{_HAS}[A-Za-z0-9]{{%s,}}[A-Za-z0-9_\-]*{_MORE}",
    "B": r"[A-Za-z0-9+/]{%s,}={0,2}",
    "C": r"[A-Z0-9]{%s,}",
    "H": r"(?=[a-f]{0,31}[0-9])[0-9a-f]{%s,}",
}


def _key_rules() -> Iterator[Rule]:
    for line in _KEYS.strip().split("\n"):
        maker, starts, body, source = line.split("|")
        literals = tuple(starts.split())
        head = "(?:{})".format("|".join(literals).replace(".", r"\."))
        kind = _BODIES[body[0].upper()]
        pattern = f"{_NOT_INSIDE}{head}{kind % body[1:]}"
        if body[0] == "u":
            pattern += f"|{head}{_BODIES['A'] % 20}"
        yield Rule(maker, source, pattern, literals, also=DRAWN)


# -- Keys that are known by their whole shape ---------------------------------

# maker | a literal in it | characters of its word at least | shape, not within a word | source
_SHAPED = r"""
AWS secret||40|(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])|docs.aws.amazon.com/IAM
Telegram bot|:|43|\d{8,10}:[A-Za-z0-9_\-]{34,36}(?![A-Za-z0-9_\-])|core.telegram.org/bots/api
Mailchimp|-us||[0-9a-f]{32}-us\d{1,2}|mailchimp.com/developer
Terraform|.atlasv1.||[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_\-]{40,}|developer.hashicorp.com/terraform
Discord bot|.|58|[MNO][A-Za-z0-9_\-]{22,27}\.[A-Za-z0-9_\-]{6}\.[A-Za-z0-9_\-]{27,40}|gitleaks
Microsoft Entra|8Q~||[A-Za-z0-9_.~\-]{3}8Q~[A-Za-z0-9_.~\-]{28,40}|learn.microsoft.com/purview
Resend|re_||re_[A-Za-z0-9]{6,12}_[A-Za-z0-9]{16,}|resend.com/docs
HubSpot|pat-|44|pat-[a-z]{2}\d-[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|developers.hubspot.com
Plaid|access-|51|access-[a-z]{7,11}-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|plaid.com/docs
Azure DevOps|AZDO|84|[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}(?![A-Za-z0-9])|learn.microsoft.com/azure/devops
Harness|pat. sat.|72|[ps]at\.[A-Za-z0-9_\-]{22}\.[0-9a-f]{24}\.[A-Za-z0-9]{20}|gitleaks
MaxMind|_mmk||[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk|dev.maxmind.com
Airtable|pat|82|pat[A-Za-z0-9]{14}\.(?=[a-f]{0,63}[0-9])[0-9a-f]{64}|airtable.com/developers
"""


def _shape_rules() -> Iterator[Rule]:
    for line in _SHAPED.strip().split("\n"):
        maker, literals, word_min, shape, source = line.split("|")
        yield Rule(
            maker,
            source,
            _NOT_INSIDE + shape,
            tuple(literals.split()),
            word_min=int(word_min or 0),
        )


# fmt: off
_SHAPES = (
    Rule("SSH",  # ... and whose it is
        "RFC 4253, section 6.6",
        _NOT_INSIDE + r"AAAA(?:[BC]3NzaC1|E2VjZHNh|G[a-z]NrL)"
        r"[A-Za-z0-9+/]{16,}={0,3}(?: [^\s@]{1,64}@[\w.\-]{1,64})?", holds=("AAAA",)),
    Rule("PEM", "RFC 7468",
        r"-----(?P<edge>BEGIN(?= [A-Z0-9])|END(?= [A-Z0-9 ]{3}))[ A-Z0-9]{1,64}(?:-----)?",
        holds=("-----",)),
    Rule("webhook",  # the address alone lets one post
        "api.slack.com/messaging/webhooks",
        r"(?:hooks\.slack\.com/(?:services|workflows|triggers)"
        r"|discord(?:app)?\.com/api(?:/v\d+)?/webhooks"
        r"|webhook\.office\.com/webhookb2|api\.telegram\.org)/"
        rf"(?P<value>[^{ENDS}?#]+)",
        holds=("hooks.slack.com/", "/webhooks/", "/webhookb2/", "api.telegram.org/")),
)
# fmt: on

# -- Secrets with a name before them ------------------------------------------

_NAME = (
    r"(?:pass(?:word|wort|wd|phrase|code)|(?<![a-z])pwd|secrets?|(?<![a-z])creds?"
    r"|kennwort|contrase[n\u00f1]a|mot de passe|(?<![a-z])senha"
    r"|\u043f\u0430\u0440\u043e\u043b\u044c|\u5bc6[\u7801\u78bc]|\u30d1\u30b9\u30ef\u30fc\u30c9"
    r"|token(?!s|[ _\-]?(?:count|limit|usage|budget|type)|i[sz])"
    r"|(?:api|access|account|private|shared|signing|encryption|master|license"
    r"|subscription|storage|admin|auth|deploy)[ _\-]?(?:access[ _\-]?)?key"
    r"|credentials?|(?<=_)auth(?![a-z])|(?<=[\"'])auth(?=[\"'])"
    r"|(?:(?<![a-z])|access[ _\-]?)sig(?:nature)?(?![a-z])"
    r"|(?-i:_(?:KEY|PASS|PAT|PWD)(?![A-Za-z])))"
    # TokenError: what follows is a message
    r"(?!\w{0,40}(?:error|exception|warning))[\w\-]{0,48}(?![\w\-])"
)
# `pass=3` counts tests.
_SHORT = r"|(?<![a-z])(?:pass|pw)(?==(?!\d+(?!\w)|true|false))"
_EQUALS = (
    # `the password is x1…`
    r"(?:(?: is:?| was|(?<=password))[ \t](?=[\"'`]?(?:[A-Za-z]{1,40}\d|\d{1,40}[A-Za-z])\S{4})"
    # `name: DB_PASSWORD, value: x`, `<add key="ApiKey" value="x"/>`
    r"|[\"']?,?\s{0,24}[\"']?value[\"']?\s{0,4}[:=]\s{0,4}"
    r"|\\*[\"'`]?\]?\s{0,4}(?:[:\uff1a=]=|[=-]>|=|[:\uff1a](?!:|//)"
    # XML; `<secret>` is ours unless something closes it.
    r"|(?<!<secret)>(?=[^\s<])|(?<=<secret)>(?=[^\s<][^<>]{0,64}</))\s{0,4})"
)
_VALUE = (
    # A block of YAML: its first line.
    r"(?:[|>][+\-\d]{0,2}[ \t]{0,4}\r?\n[ \t]{1,40}(?P<block>\S[^\r\n]*)"
    r"|\"(?P<double>[^\"\\\r\n]*(?:\\.[^\"\\\r\n]*)*)"
    r"|'(?P<single>[^'\\\r\n]*(?:\\.[^'\\\r\n]*)*)"
    r"|`(?P<back>[^`\r\n]*)"
    r"|\\+[\"'](?P<escaped>[^\"'\\\r\n]*(?:\\+[^\"'\\\r\n]+)*)"
    r"|(?P<bare>[^\s<\"'`][^\s<]*))"
)
# The key of a dict whose value is a secret.
SECRET_KEY = rf"(?i)(?:{_NAME}|authorization|cookie2?)\Z"
# fmt: off
_NAMED = (
    Rule("named secret",  # `password=x`, "token": "x", API_KEY = 'x', <secret>x
        "OWASP Logging Cheat Sheet", f"(?i)(?:{_NAME}{_SHORT}){_EQUALS}{_VALUE}",
        holds=SECRET_WORDS, also=(":", "=", ">", " ", "\t"), any_case=True),
    # `--password x`, `-token x`, `password "x"`, and the list that a failed subprocess
    # quotes, `['--password', 'x']`.
    Rule("secret option", "OWASP Logging Cheat Sheet",
        rf"(?i)(?:{_NAME}|(?<=-)(?:pass|pw)(?![\w\-]))"
        rf"(?:[ \t]{{1,4}}|\\{{0,3}}[\"'],\s{{0,4}}(?=\\{{0,3}}[\"']))(?!-){_VALUE}",
        holds=SECRET_WORDS, also=(" ", "\t", ","), any_case=True),
    Rule("header", "RFC 9110, section 11.6.2; RFC 6265",  # with parameters: to its end
        r"(?i)(?:authorization|cookie2?)\\*[\"']?\s{0,4}[:=]\s{0,4}\\*[\"']?"
        r"(?P<value>[\w\-]{2,32}[ \t]{1,4}\w{1,32}=\\*\"[^\r\n<']*"
        r"|(?:bearer|basic|token|apikey|negotiate|ntlm)\s+[^\s\"',<]+"
        r"|[^\s\"'<][^\r\n\"'<]*)", holds=("authorization", "cookie"),
        also=(":", "="), any_case=True),
    Rule("scheme", "RFC 6750; RFC 7617", r"(?i:\b(?:bearer|basic))[ \t]{1,4}"
        r"(?P<value>(?=[^\s\"'<]{0,80}?(?:[0-9+/=]|[a-z][A-Z]))[A-Za-z0-9._~+/=\-]{8,})",
        holds=("bearer", "basic"), also=(" ", "\t"), any_case=True),
    Rule("account",  # a line of .netrc; a password behind a short option
        "the manual pages of netrc and sshpass",
        r"(?i)(?:\blogin\s{1,4}\S{1,64}\s{1,4}password\s{1,4}|\bsshpass\s{1,4}-p\s{0,4})"
        r"(?P<value>[^\s<]+)", holds=("login", "sshpass"), also=(" ", "\t"),
        any_case=True),
    Rule("account of a driver",  # bob:pass@host:22, bob:pass@tcp(host), bob/pass@host:1
        "github.com/go-sql-driver/mysql; docs.oracle.com/jdbc",
        r"(?<![\w/@.\-])(?P<value>[\w.\-]{1,64}:[^\s:/@\"'<>]{2,128}"
        r"|(?<=thin:)[\w.\-]{1,64}/[^\s:/@\"'<>]{2,128})"
        r"@(?=(?:tcp|unix)\(|[\w.\-/]{1,64}:\d{2,5}\b)", holds=("@",), also=(":",)),
    Rule("user option",  # curl -u bob:pass
        "curl.se/docs/manpage.html",
        r"(?<![\w\-])(?:-u|--(?:proxy-)?user)(?:[ =]{1,4}[\"']?|[\"'],\s{0,4}[\"'])"
        r"(?P<value>[^\s:\"'<]+:[^\s\"'<]+)", holds=("-u",), also=(":",)),
)
# fmt: on

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
_PATHS = (
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
_ADDRESSES = (
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

_FREE = (
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

# -- All of them, and whether one may match -----------------------------------

EVERYWHERE = (
    *_PATHS,
    *_ADDRESSES,
    *_key_rules(),
    *_shape_rules(),
    *_SHAPES,
    *_NAMED,
)
IN_FREE_TEXT = (*EVERYWHERE, *_FREE)

_NUMBERS = frozenset("0123456789")


class Index:
    """Finds out whether some rule may match a text without looking at each rule.

    Rules are indexed by one character of each of their literals, one that few texts
    have. Those that need a digit or a capital are spared where a text has neither.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._keys: dict[str, list[tuple[str, Rule]]] = {}
        self._rest: dict[str, list[tuple[str, Rule]]] = {}
        self._others: list[tuple[str, Rule]] = []
        for rule in rules:
            literals = rule.holds or ("",)
            if rule.any_case:
                literals = rule.also or literals
            for literal in literals:
                sign = literal.strip(ALNUM) or literal.strip(SMALL)
                if sign:
                    table = self._keys if rule.also is DRAWN else self._rest
                    table.setdefault(sign[0], []).append((literal, rule))
                else:
                    self._others.append((literal, rule))

    def may_match(self, text: str, low: str, *, free: bool) -> bool:
        """Whether some rule may match the text; `low` is it in lower case."""
        is_drawn = text != low or not _NUMBERS.isdisjoint(text)
        for table in (self._keys, self._rest) if is_drawn else (self._rest,):
            for sign in table.keys() & text:
                for literal, rule in table[sign]:
                    if (
                        literal in (low if rule.any_case else text)
                        and (free or not rule.free)
                        and rule.may_match(text, low)
                    ):
                        return True
        return any(
            literal in low and (free or not rule.free) and rule.may_match(text, low)
            for literal, rule in self._others
        )


INDEX = Index(IN_FREE_TEXT)
