"""What is planted to see whether it comes out: secrets, disguises, surroundings.

Rules:
- No key here was ever one: bodies are drawn from a seeded generator.
- A canary says by which traces it would be recognised, once every escape is undone.
"""

from __future__ import annotations

import base64
import html
import json
import quopri
import random
import re
import string
import uuid
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote


if TYPE_CHECKING:
    from collections.abc import Callable


HOME, USER = "/home/alice", "alice"
HOMES, USERS = (HOME, r"C:\Users\Alice"), (USER,)

_HEX = "0123456789abcdef"
_UPPER32 = string.ascii_uppercase + "234567"
_ALNUM = string.ascii_letters + string.digits
_URLSAFE = _ALNUM + "-_"
_BASE64 = _ALNUM + "+/"
_BECH32 = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"

_rng = random.Random(20240607)


def drawn(alphabet: str, size: int) -> str:
    return "".join(_rng.choice(alphabet) for _ in range(size))


class Canary(NamedTuple):
    name: str
    text: str
    traces: tuple[str, ...]  # not in the output, in any case
    key: bool = False  # one word without blanks
    free: bool = False  # promised for free text only


def windows(secret: str, size: int = 10) -> tuple[str, ...]:
    """Every stretch of a key that would be a leak if it stayed."""
    if len(secret) <= size:
        return (secret,)
    return tuple(secret[i : i + size] for i in range(len(secret) - size + 1))


def key(name: str, prefix: str, body: str, suffix: str = "") -> Canary:
    return Canary(name, prefix + body + suffix, windows(body), key=True)


def _jwt() -> Canary:
    head = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
    body = "eyJ" + drawn(_URLSAFE, 60)
    text = f"{head}.{body}.{drawn(_URLSAFE, 43)}"
    return Canary("jwt", text, windows(text), key=True)


KEYS = (
    key("openai", "sk-", drawn(_ALNUM, 48)),
    key("openai project", "sk-proj-", drawn(_URLSAFE, 124)),
    key("anthropic", "sk-ant-api03-", drawn(_URLSAFE, 93), "AA"),
    key("anthropic admin", "sk-ant-admin01-", drawn(_URLSAFE, 93), "AA"),
    key("openrouter", "sk-or-v1-", drawn(_HEX, 64)),
    key("deepseek", "sk-", drawn(_HEX, 32)),
    key("langfuse", "pk-lf-", drawn(_HEX, 8) + "-" + drawn(_HEX, 24)),
    key("groq", "gsk_", drawn(_ALNUM, 52)),
    key("xai", "xai-", drawn(_ALNUM, 80)),
    key("perplexity", "pplx-", drawn(_ALNUM, 48)),
    key("replicate", "r8_", drawn(_ALNUM, 37)),
    key("nvidia", "nvapi-", drawn(_URLSAFE, 64)),
    key("hugging face", "hf_", drawn(string.ascii_letters, 34)),
    key("langsmith", "lsv2_pt_", drawn(_HEX, 32), "_" + drawn(_HEX, 10)),
    key("tavily", "tvly-", drawn(_ALNUM, 32)),
    key("firecrawl", "fc-", drawn(_HEX, 32)),
    key("e2b", "e2b_", drawn(_HEX, 40)),
    key("pinecone", "pcsk_", drawn(_ALNUM, 68)),
    key("aws id", "AKIA", drawn(_UPPER32, 16)),
    key("aws session id", "ASIA", drawn(_UPPER32, 16)),
    key("aws secret", "", "a1B2+" + drawn(_BASE64, 35)),
    key("google api", "AIza", drawn(_URLSAFE, 35)),
    key("google oauth", "ya29.", drawn(_URLSAFE, 120)),
    key("google client", "GOCSPX-", drawn(_URLSAFE, 28)),
    key("google refresh", "1//0", drawn(_URLSAFE, 60)),
    key("azure client", drawn(_ALNUM, 3) + "8Q~", drawn(_ALNUM, 34)),
    *(key(f"github {p}", f"gh{p}_", drawn(_ALNUM, 36)) for p in "pousr"),
    key("github fine", "github_pat_", drawn(_ALNUM, 22) + "_" + drawn(_ALNUM, 59)),
    key("gitlab", "glpat-", drawn(_URLSAFE, 20)),
    key("gitlab runner", "glrt-", drawn(_URLSAFE, 20)),
    *(
        key(f"slack {p}", f"xox{p}-", f"{drawn('123456789', 12)}-{drawn(_ALNUM, 24)}")
        for p in "bpars"
    ),
    key("slack app", "xapp-1-", "A" + drawn(_UPPER32, 10) + "-" + drawn(_HEX, 64)),
    key("stripe", "sk_live_", drawn(_ALNUM, 24)),
    key("stripe restricted", "rk_live_", drawn(_ALNUM, 24)),
    key("stripe public", "pk_live_", drawn(_ALNUM, 24)),
    key("stripe test", "sk_test_", drawn(_ALNUM, 24)),
    key("stripe hook", "whsec_", drawn(_ALNUM, 32)),
    key("square", "sq0atp-", drawn(_URLSAFE, 22)),
    key("npm", "npm_", drawn(_ALNUM, 36)),
    key("pypi", "pypi-AgEIcHlwaS5vcmc", drawn(_URLSAFE, 80)),
    key("rubygems", "rubygems_", drawn(_HEX, 48)),
    key("docker", "dckr_pat_", drawn(_URLSAFE, 27)),
    key("digitalocean", "dop_v1_", drawn(_HEX, 64)),
    key("sendgrid", "SG.", drawn(_URLSAFE, 22) + "." + drawn(_URLSAFE, 43)),
    key("twilio key", "SK", drawn(_HEX, 32)),
    key("twilio account", "AC", drawn(_HEX, 32)),
    key("mailgun", "key-", drawn(_HEX, 32)),
    key("mailchimp", "", drawn(_HEX, 32), "-us12"),
    key("sendinblue", "xkeysib-", drawn(_HEX, 64) + "-" + drawn(_ALNUM, 16)),
    key("telegram", drawn("123456789", 10) + ":", drawn(_URLSAFE, 35)),
    key(
        "discord bot",
        "M" + drawn(_ALNUM, 23) + ".",
        drawn(_URLSAFE, 6) + "." + drawn(_URLSAFE, 38),
    ),
    key("databricks", "dapi", drawn(_HEX, 32)),
    key("shopify", "shpat_", drawn(_HEX, 32)),
    key("linear", "lin_api_", drawn(_ALNUM, 40)),
    key("sentry", "sntrys_", drawn(_ALNUM, 64)),
    key("vault", "hvs.", drawn(_URLSAFE, 90)),
    key("age", "AGE-SECRET-KEY-1", drawn(_BECH32, 58)),
    key("fly", "fo1_", drawn(_URLSAFE, 43)),
    key("heroku", "HRKU-", drawn(_URLSAFE, 60)),
    key("netlify", "nfp_", drawn(_ALNUM, 36)),
    key("supabase", "sbp_", drawn(_HEX, 40)),
    key("planetscale", "pscale_tkn_", drawn(_URLSAFE, 43)),
    key("doppler", "dp.pt.", drawn(_ALNUM, 43)),
    key("dynatrace", "dt0c01.", drawn(_UPPER32, 24) + "." + drawn(_UPPER32, 64)),
    key("new relic", "NRAK-", drawn(_UPPER32, 27)),
    key("grafana", "glsa_", drawn(_ALNUM, 32) + "_" + drawn(_HEX, 8)),
    key("posthog", "phx_", drawn(_ALNUM, 43)),
    key("figma", "figd_", drawn(_URLSAFE, 40)),
    key("notion", "ntn_", drawn(_ALNUM, 46)),
    key("atlassian", "ATATT3", drawn(_URLSAFE, 180)),
    key("postman", "PMAK-", drawn(_HEX, 24) + "-" + drawn(_HEX, 34)),
    key("pulumi", "pul-", drawn(_HEX, 40)),
    key("terraform", drawn(_ALNUM, 14) + ".atlasv1.", drawn(_URLSAFE, 67)),
    key("airtable", "pat" + drawn(_ALNUM, 14) + ".", drawn(_HEX, 64)),
    key("tailscale", "tskey-auth-", drawn(_ALNUM, 12) + "-" + drawn(_ALNUM, 32)),
    key("sonar", "squ_", drawn(_HEX, 40)),
    key("openshift", "sha256~", drawn(_URLSAFE, 43)),
    key("alibaba", "LTAI", drawn(_ALNUM, 20)),
    key("elevenlabs", "sk_", drawn(_HEX, 48)),
    key("vercel", "vcp_", drawn(_ALNUM, 56)),
    key("vercel gateway", "vck_", drawn(_ALNUM, 56)),
    key("neon", "napi_", drawn(_ALNUM, 64)),
    key("together", "tgp_v1_", drawn(_URLSAFE, 43)),
    key("jina", "jina_", drawn(_ALNUM, 60)),
    key("llama cloud", "llx-", drawn(_ALNUM, 48)),
    key("cerebras", "csk-", drawn(_ALNUM, 48)),
    key("runpod", "rpa_", drawn(_ALNUM, 44)),
    key("kaggle", "KGAT_", drawn(_HEX, 32)),
    key("atlas", "mdb_sa_sk_", drawn(_URLSAFE, 40)),
    key("apify", "apify_api_", drawn(_ALNUM, 36)),
    key("logfire", "pylf_v1_us_", drawn(_ALNUM, 43)),
    key("honeycomb", "hcaik_", drawn(_ALNUM, 58)),
    key("axiom", "xaat-", drawn(_HEX, 8) + "-" + drawn(_HEX, 27)),
    key("dbt", "dbtu_", drawn(_URLSAFE, 60)),
    key("packagist", "packagist_uut_", drawn(_HEX, 68)),
    key("docker swarm", "SWMTKN-1-", drawn(_ALNUM, 50) + "-" + drawn(_ALNUM, 25)),
    key("flutterwave", "FLWSECK_TEST-", drawn(_HEX, 32) + "-X"),
    key("razorpay", "rzp_live_", drawn(_ALNUM, 14)),
    key("shippo", "shippo_live_", drawn(_HEX, 40)),
    key("duffel", "duffel_live_", drawn(_URLSAFE, 43)),
    key("readme", "rdme_", drawn(_HEX, 70)),
    key("zapier", "zpka_", drawn(_ALNUM, 42)),
    key("sourcegraph", "sgp_", drawn(_HEX, 16) + "_" + drawn(_HEX, 40)),
    key("1password", "ops_eyJ", drawn(_URLSAFE, 200)),
    key("resend", "re_", drawn(_ALNUM, 8) + "_" + drawn(_ALNUM, 24)),
    key("gemini", "AQ.Ab8RN6", drawn(_URLSAFE, 44)),
    key("aws session", "IQoJb3JpZ2lu", drawn(_BASE64, 300)),
    key("crates.io", "cio", drawn(_ALNUM, 32)),
    key("frame.io", "fio-u-", drawn(_URLSAFE, 64)),
    key("snyk", "snyk_uat.", drawn(_HEX, 8) + "." + drawn(_ALNUM, 40)),
    key("easypost", "EZAK", drawn(_ALNUM, 54)),
    key("infracost", "ico-", drawn(_ALNUM, 32)),
    key("scalingo", "tk-us-", drawn(_URLSAFE, 48)),
    key("adafruit", "aio_", drawn(_ALNUM, 28)),
    key("yandex", "y0_Ag", drawn(_URLSAFE, 50)),
    key("hubspot", "pat-na1-", str(uuid.UUID(drawn(_HEX, 32)))),
    key("plaid", "access-production-", str(uuid.UUID(drawn(_HEX, 32)))),
    key(
        "harness",
        "pat.",
        drawn(_URLSAFE, 22) + "." + drawn(_HEX, 24) + ".",
        drawn(_ALNUM, 20),
    ),
    key("maxmind", drawn(_ALNUM, 6) + "_", drawn(_ALNUM, 29), "_mmk"),
    key("azure devops", "", drawn(_ALNUM, 76), "AZDO" + drawn(_ALNUM, 4)),
    key("fireworks", "fw_", "3Z" + drawn(_ALNUM, 22)),
    key("prefect", "pnu_", drawn(_ALNUM, 36)),
    key("typeform", "tfp_", drawn(_ALNUM, 44) + "_" + drawn(_ALNUM, 14)),
    key("openai session", "sess-", drawn(_ALNUM, 40)),
    key("dropbox", "sl.", drawn(_URLSAFE, 130)),
    key("facebook", "EAA", drawn(_ALNUM, 160)),
    key("tencent", "AKID", drawn(_ALNUM, 32)),
    key("jfrog", "AKCp", drawn(_ALNUM, 69)),
    key("gitlab registration", "GR1348941", drawn(_URLSAFE, 20)),
    key("ssh public", "AAAAC3NzaC1lZDI1NTE5AAAAI", drawn(_BASE64, 43)),
    _jwt(),
)


def _named() -> tuple[Canary, ...]:
    out = []
    for template in (
        "password={}",
        "password: {}",
        "Password = '{}'",
        '"secret": "{}"',
        "'client_secret': '{}'",
        "token: {}",
        "auth_token={}",
        "api_key={}",
        "apiKey: `{}`",
        "X-Api-Key: {}",
        "Authorization: Bearer {}",
        "Authorization: Basic {}",
        "authorization={}",
        "AWS_SECRET_ACCESS_KEY={}",
        "AZURE_OPENAI_KEY={}",
        "export DB_PASSWORD={}",
        "AccountKey={};EndpointSuffix=core.windows.net",
        "SharedAccessKey={}",
        "sp=r&sv=2022&sig={}",
        "--password {}",
        "--api-key={}",
        "-token {}",
        "Set-Cookie: sid={}; Path=/; HttpOnly",
        "Cookie: a=1; b={}",
        "<password>{}</password>",
        "<secret>{}</secret>",
        'headers["token"] = "{}"',
        "curl -u someone:{} x",
        "passphrase := {}",
        "PASS={}",
        "db_pw={}",
        "pw={}",
        "passwort: {}",
        "Contrase\u00f1a: {}",
        "mot de passe : {}",
        "\u043f\u0430\u0440\u043e\u043b\u044c: {}",
        "\u5bc6\u7801\uff1a{}",
        "password -> {}",
        "with password 4{}",
        "creds={}",
        "--pass {}",
        "the password is 4{}",
        "['mysql', '--password', '{}', 'x']",
        '["x", "--api-key", "{}"]',
        "['curl', '-u', 'someone:{}']",
        "sshpass -p {} ssh",
        "machine x login y password {}",
        "&quot;password&quot;:&quot;{}&quot;",
        "{{'password': b'{}'}}",
        "https://example.com/#access_token={}",
        "https://example.com/#/x?token={}",
        "- name: STORE_PASSWORD\n    value: {}",
        '<add key="apiKey" value="{}"/>',
        '{{"name": "DB_SECRET", "value": "{}"}}',
        'Authorization: Digest username="me", response="{}"',
        "client_secret: |\n    {}",
        '"registry.example": {{"auth": "{}"}}',
        "jdbc:oracle:thin:me/{}@//db.example:1521/x",
        "the password is: 4{}",
        "your password was '4{}'",
    ):
        secret = drawn(_ALNUM, 14)
        out.append(Canary(template, template.format(secret), (secret,)))
    return tuple(out)


def _pem() -> tuple[Canary, ...]:
    lines = [drawn(_BASE64, 64) for _ in range(4)]
    body = "\n".join(lines)
    begin, end = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
    traces = tuple(w for line in lines for w in windows(line))
    return (
        Canary("pem", f"{begin}\n{body}\n{end}", traces),
        Canary("pem escaped", f"{begin}\n{body}\n{end}".replace("\n", "\\n"), traces),
        Canary("pem cut off", f"{begin}\n{body}"[:-20], traces),
        Canary("pem beheaded", f"{body}\n{end}", traces),
        Canary("pgp", f"{begin}\n{body}\n{end}".replace("RSA", "PGP"), traces),
    )


PATHS = tuple(
    Canary(text, text, ("alice", "bob", "tax", "letter", "kunden"))
    for text in (
        "/home/alice/tax.txt",
        "/home/bob/tax.txt",
        "/Users/bob/tax.txt",
        "/home/alice",
        "/Users/alice",
        "/root/tax/x.py",
        "/var/folders/xx/tax/T/letter",
        "/tmp/tax",
        "/opt/kunden/x",
        "//server/kunden/tax",
        "/mnt/c/Users/bob/tax",
        r"C:\Users\Alice\tax.txt",
        r"c:\users\ALICE\tax.txt",
        r"D:\kunden\tax.txt",
        "C:/Users/bob/tax.txt",
        r"\\fileserver\kunden\tax",
        r"\\?\C:\Users\bob\tax",
        r"\\?\UNC\fileserver\kunden\tax",
        r"\Users\bob\tax",
        "~/tax.txt",
        "~alice/tax.txt",
        "~bob/tax.txt",
        "$HOME/tax.txt",
        "${HOME}/tax.txt",
        r"%USERPROFILE%\tax.txt",
        "../../home/bob/tax",
        "file:///home/alice/tax.txt",
        "file:///C:/Users/bob/tax.txt",
        "FILE:///Users/bob/tax",
        "file://fileserver/kunden/tax",
        "打开/home/bob/tax",
        "(x)/home/bob/tax",
        "sqlite:////home/bob/tax.db",
        "unix:///run/kunden.sock",
        "vscode://file/home/bob/tax.py:3",
        "/home/alice/x(1)/tax[2].txt",
        "/home/alice/{tax}/x",
        "/home/alice/a,letter/tax",
        "/home/alice/tax.py:12:5",
        "/srv/x:/home/bob/tax:ro",
        "/var/home/bob/tax",
        "/export/home/bob/tax",
        "/System/Volumes/Data/Users/bob/tax",
        "/cygdrive/c/Users/bob/tax",
        "//wsl$/Ubuntu/home/bob/tax",
        r"\\wsl$\Ubuntu\home\bob\tax",
        r"\\wsl.localhost\Ubuntu\home\bob\tax",
        "file:///C|/Users/bob/tax",
        "smb://fileserver/kunden/tax",
        "smb://bob@fileserver/kunden/tax",
        "afp://fileserver/kunden/tax",
        "nfs://fileserver/home/bob",
        "https://example.com/#/home/bob/tax",
        "$XDG_CONFIG_HOME/kunden/tax",
        r"$env:APPDATA\bob\tax",
        r"${env:USERPROFILE}\tax",
        r"%TEMP%\bob\tax",
        r"%LOCALAPPDATA%\kunden\tax",
        "&#47;home&#47;bob&#47;tax",
        "&#x2F;home&#x2f;bob&#x2F;tax",
        "b'/home/bob/tax'",
        "PosixPath('/home/bob/tax')",
        '"{\\"a\\": \\"{\\\\\\"b\\\\\\": \\\\\\"/home/bob/tax\\\\\\"}\\"}"',
    )
)
PATHS_WITH_BLANKS = tuple(
    Canary(text, text, ("alice", "smith", "bob", "tax", "letter", "client"))
    for text in (
        "/Users/alice/My Documents/tax.txt",
        "/home/bob/My Letter Box/client/tax return 2023.pdf",
        r"C:\Users\Alice Smith\My Letter\tax.docx",
        r"C:\Program Files (x86)\client\tax.exe",
        "/Volumes/Letter HD/Users/bob/tax.txt",
        "/mnt/c/Users/Bob Smith/tax.txt",
        r"C:\Documents and Settings\bob\tax",
        'Traceback:\n  File "/home/bob/my client/tax.py", line 3, in x',
        '"/mnt/data disk/client list/letter box"',
        "'/srv/my client/letter'",
        "/home/alice/My\\ Letter/tax.txt",
    )
)
ADDRESSES = (
    Canary("email", "carol.jones@example.com", ("carol", "jones")),
    Canary("email plus", "carol+jones@mail.example.co.uk", ("carol", "jones")),
    Canary("email host", "carol@localhost", ("carol",)),
    Canary("scp", "carol@build-7:/srv/jones", ("carol", "jones")),
    Canary("mailto", "mailto:carol@example.com?subject=jones", ("carol", "jones")),
    Canary("url user", "https://carol:jones@example.com/x", ("carol", "jones")),
    Canary("url token", "https://jones@example.com/x.git", ("jones",)),
    Canary(
        "url slash", "postgres://carol:jon/es@db.example.com/x", ("carol", "jon/es")
    ),
    Canary("url query", "https://example.com/x?q=jones&b=carol", ("jones", "carol")),
    Canary("url fragment", "https://example.com/x#access=jones", ("jones",)),
    Canary("url home", "https://example.com/home/carol/x", ("carol",)),
    Canary("url home of a user", "https://example.com/~carol/x", ("carol",)),
    Canary("url name", "https://github.com/alice/x", ("alice",)),
    Canary("bare query", "example.com/x?q=jones&b=carol", ("jones", "carol")),
    Canary("webhook", "https://hooks.slack.com/services/T01/B02/jones", ("jones",)),
    Canary("discord", "https://discord.com/api/webhooks/12/jones", ("jones",)),
    Canary("user", "alice", ("alice",)),
    Canary("user", "ALICE", ("alice",)),
    Canary("user of others", "user=jones", ("jones",)),
    Canary("name of others", '"username": "jones"', ("jones",)),
    Canary("id of others", "Server=db;User ID=jones;x=1", ("jones",)),
    Canary("name in Python", "{'USER': 'jones'}", ("jones",)),
    Canary("name of a shell", "LOGNAME=jones", ("jones",)),
    Canary("account", "carol:jones@build-7:22", ("carol", "jones")),
    Canary("account of a driver", "carol:jones@tcp(db:3306)/x", ("carol", "jones")),
    Canary(
        "ssh comment",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 carol@jones",
        ("carol",),
    ),
    Canary("octal", "\\057home\\057jones\\057x", ("jones",)),
    Canary("code point", "\\u{2f}home\\u{2f}jones\\u{2f}x", ("jones",)),
    Canary("rsync", "carol@build-7::module", ("carol",)),
    Canary("email in HTML", "carol&#64;example.com", ("carol",)),
)
FREE = (
    Canary("ipv4", "203.0.113.77", ("203.0", "113.77"), free=True),
    Canary("ipv4 port", "203.0.113.77:8443", ("203.0", "8443"), free=True),
    Canary("ipv6", "2001:db8:85a3::8a2e:370:7334", ("2001", "7334"), free=True),
    Canary("ipv6 full", "2001:db8:0:0:1:8a2e:370:7334", ("2001", "7334"), free=True),
    Canary("ipv6 port", "[2001:db8::7334]:8443", ("2001", "7334", "8443"), free=True),
    Canary("ipv6 zone", "fe80::8a2e:7334%eth0", ("8a2e", "7334"), free=True),
    Canary("ipv6 zone in a URL", "[fe80::8a2e:7334%25en0]:443", ("8a2e",), free=True),
    Canary("ipv4 in a URL", "http://203.0.113.77:8443/x", ("203.0", "8443"), free=True),
    Canary("ipv4 in ipv6", "::ffff:203.0.113.77", ("203.0", "113.77"), free=True),
    Canary("mac of Windows", "DE-AD-BE-EF-12-34", ("de-ad", "12-34"), free=True),
    Canary("ec2", "ec2-203-0-113-77.compute", ("203-0", "113-77"), free=True),
    Canary("ec2 alone", "ec2-203-0-113-77", ("203-0", "113-77"), free=True),
    Canary("mac", "de:ad:be:ef:12:34", ("de:ad", "12:34"), free=True),
    Canary(
        "uuid",
        "6f1c1d9e-5b0f-4a7e-9c3d-2b8e7f6a5d4c",
        ("6f1c1d9e", "2b8e7f6a"),
        free=True,
    ),
    *(
        Canary(f"{size} of {name}", body, windows(body), free=True)
        for name, alphabet in (
            ("hex", _HEX),
            ("base62", _ALNUM),
            ("url-safe base64", _URLSAFE),
            ("base64", _BASE64),
        )
        for size in (24, 32, 44, 64)
        for body in ["a9Z"[: 3 * (alphabet != _HEX)] + drawn(alphabet, size)]
    ),
)
CANARIES = (*KEYS, *_named(), *_pem(), *PATHS, *PATHS_WITH_BLANKS, *ADDRESSES, *FREE)


# -- Escapes: the same text as the layers of a program write it ----------------

DISGUISES: dict[str, Callable[[str], str]] = {
    "none": str,
    "percent": lambda s: quote(s, safe=""),
    "percent, lower case": lambda s: re.sub(
        "%..", lambda m: m[0].lower(), quote(s, safe="")
    ),
    "percent, twice": lambda s: quote(quote(s, safe=""), safe=""),
    "json": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "json, twice": lambda s: json.dumps(json.dumps(s)[1:-1])[1:-1],
    "json in percent": lambda s: quote(json.dumps(s)[1:-1], safe=""),
    "unicode escapes": lambda s: "".join(f"\\u{ord(c):04x}" for c in s),
}
# The program's own key, as programs and servers write it.
OWN_KEY = "own+key/0123456789=Quorvexil'&"
OWN_KEY_WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "JSON, all escaped": lambda s: "".join(f"\\u{ord(c):04x}" for c in s),
    "JSON in JSON": lambda s: json.dumps(json.dumps(s)),
    "percent": lambda s: quote(s, safe=""),
    "percent, twice": lambda s: quote(quote(s, safe=""), safe=""),
    "repr": lambda s: repr(s + '"'),
    "HTML": html.escape,
    "HTML, in numbers": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "reversed slashes": lambda s: s.replace("/", "\\"),
    "hexadecimal": lambda s: s.encode().hex().upper(),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 of an account": lambda s: base64.b64encode(f"me:{s}".encode()).decode(),
    "base64 of URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "MIME": lambda s: quopri.encodestring(s.encode()).decode(),
    "upper case": str.upper,
    "reversed": lambda s: s[::-1],
    "its beginning": lambda s: s[:8],
    "its middle": lambda s: s[7:15],
    "its end": lambda s: s[-8:],
    "wrapped": lambda s: s[:10] + "\n" + s[10:],
    "bytes in HTML": lambda s: "".join(f"&#x{b:02X};" for b in s.encode()),
    "octal": lambda s: "".join(f"\\{b:03o}" for b in s.encode()),
    "hexadecimal in C": lambda s: "".join(f"\\x{b:02x}" for b in s.encode()),
    "a list in C": lambda s: ", ".join(f"0x{b:02x}" for b in s.encode()),
    "a fingerprint": lambda s: s.encode().hex(":").upper(),
    "a dump": lambda s: s.encode().hex(" ", 2),
    "a list of bytes": lambda s: str([*s.encode()]),
    "MIME, all coded": lambda s: "".join(f"={b:02X}" for b in s.encode()),
    "code points": lambda s: " ".join(f"U+{ord(c):04X}" for c in s),
    "IIS": lambda s: "".join(f"%u{ord(c):04x}" for c in s),
    "CSS": lambda s: "".join(f"\\{ord(c):x} " for c in s),
    "OOXML": lambda s: "".join(f"_x{ord(c):04X}_" for c in s),
    "a dump of Windows": lambda s: s.encode("utf-16-le").hex(" "),
    "a terminal's colours": lambda s: f"{s[:9]}\x1b[0m\x1b[1m{s[9:]}",
    "Markdown": lambda s: "".join(c if c.isalnum() else f"\\{c}" for c in s),
    "two strings": lambda s: f"{s[:11]}' + '{s[11:]}",
    "a shell's quotes": lambda s: s.replace("-", "'\"-\"'"),
    "UTF-16": lambda s: s.encode("utf-16").decode("latin-1"),
    "spread": " ".join,
    "base32": lambda s: base64.b32encode(b"me" + s.encode()).decode(),
    "base64 in lines": lambda s: base64.encodebytes(s.encode() * 3).decode(),
    "in three layers": lambda s: quote(json.dumps(json.dumps(quote(s, safe="")))),
    "half of it escaped": lambda s: s[:9] + quote(quote(s[9:14], safe="")) + s[14:],
    "with invisible marks": "\u200b".join,
}


def own_key_leaks(text: str, key: str = OWN_KEY) -> set[str]:
    """Stretches of the key that a text gives away, in one of these spellings.

    Eight characters as they are; sixteen letters and digits of what was written, so
    that base64 may share its ends with what is around it, and signs may come between.
    """
    found = {part for part in windows(key, 8) if part in text}
    return found | (_sixteens(text) & _sixteens_written(key))


def _sixteens(text: str) -> set[str]:
    letters = "".join(filter(str.isalnum, text.lower()))
    return {letters[i : i + 16] for i in range(len(letters) - 15)}


@cache
def _sixteens_written(key: str) -> set[str]:
    written = (write(key).strip()[4:-4] for write in OWN_KEY_WRITTEN.values())
    return set().union(*map(_sixteens, written))


SURROUNDINGS = (
    "{}",
    " {} ",
    "error: {}",
    "'{}'",
    '"{}"',
    "`{}`",
    "({})",
    "[{}]",
    "<{}>",
    "x={}",
    '{{"field": "{}", "other": 1}}',
    "found {}, sorry.",
    "cannot use {}: denied",
    "first line\n{}\nlast line",
    "\x1b[1m{}\x1b[0m",
    "错误\uff1a{}。",
    "👤 {} 🎉",
    "\u202a{}\u202c",
)


def undisguised(text: str) -> str:
    """A text with every escape undone, without regard for what that breaks."""
    for _ in range(4):
        text = re.sub(
            r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), unquote(text)
        )
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return text.lower()
