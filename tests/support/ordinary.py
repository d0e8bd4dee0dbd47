"""What a program really says, by the hundred: all of it has to come through.

Nothing of it is private, whatever it looks like: words, messages, versions, flags,
names of models, tools and modules.
"""

from __future__ import annotations

import builtins
import errno
import json
import keyword
import os
import signal
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus

import msgspec


_MODELS = (
    "gpt-4o gpt-4.1-mini gpt-5 o1-preview o4-mini chatgpt-4o-latest davinci-002 "
    "text-embedding-3-large claude-opus-4-20250514 claude-3-7-sonnet-latest "
    "claude-3.5-haiku anthropic.claude-3-5-sonnet-20241022-v2:0 gemini-2.5-pro "
    "gemini-1.5-flash-8b-001 llama-3.3-70b-versatile llama3.2:3b-instruct-q4_K_M "
    "meta-llama/Llama-3.1-405B-Instruct mistral-large-2411 mixtral-8x7b-32768 "
    "codestral-latest deepseek-r1-distill-qwen-32b deepseek-chat qwen2.5-coder:14b "
    "Qwen/Qwen2.5-72B-Instruct grok-3-mini command-r-plus-08-2024 phi-4 "
    "nomic-embed-text:v1.5 jina-embeddings-v3 jina_embeddings_v3 sonar-reasoning-pro "
    "amazon.nova-pro-v1:0 ai/smollm2:135M-Q4_0 stable-diffusion-xl-1024-v1-0 "
    "openrouter/auto fireworks-ai/fw-function-calling-34b-v0 whisper-large-v3-turbo"
)
_TOOLS = (
    "read_file write_file list_directory search_files_content run_shell_command "
    "mcp__github__create_pull_request browser_take_screenshot transfer_task "
    "create_todos think get_memories fetch_webpage edit_multiple_files str_replace "
    "dbt_utils napi_threadsafe_function rpa_workflow_runner fw_cfg_interface "
    "shippo_orders duffel_flights apify_api_client re_match_all sess-manager "
    "sk-learn-tool key-value-store session_start user_lookup login_page token_counter "
    "password_reset secret_santa auth0_rules cookie_banner webhook_list"
)
_VERSIONS = (
    "0.1.0 1.0.0-alpha.1 1.2.3+build.5 2025.11.22 v22.11.0 3.13.0rc2 5.15.0-1051-aws "
    "go1.24.1 1.84.0-nightly 10.0.19045 24.04.1 r1234 ^4.17.21 ~=1.4.2 >=2,<3 ==1.0.* "
    "1.2.3.post1 0.0.0-20241022103000-abcdef012345 20H2 2.39-0ubuntu8.3 cp311-cp311"
)
_FLAGS = (
    "-v -vv -q -o -h -- --help --version --verbose --no-color --dry-run --output-dir "
    "--format=json --max-tokens=4096 --log-level=debug --jobs=8 --retry 3 -O2 -Wall "
    "-std=c++17 --user --pass-through --password-file --token-type --key-size=2048 "
    "--keep-going --secret-scanning --auth-mode=none --no-cookies"
)
MESSAGES = (
    "pass=3 fail=1",
    "3 passed, 2 failed, 1 skipped",
    "user: unknown",
    "user = None",
    "user=root",
    "user_id=42",
    "user=True",
    "username: required",
    "Username is required",
    "login failed",
    "please login to continue",
    "Last login: Mon Nov 3",
    "password is required",
    "password is incorrect",
    "the password is too short",
    "token is expired",
    "secret is missing",
    "invalid 'password', 'token' or 'key'",
    "Missing fields: 'password', 'email'",
    'missing required arguments: "password", "host"',
    "unexpected keyword argument 'token', expected 'tokens'",
    "KeyError: 'password'",
    "TypeError: f() got an unexpected keyword argument 'user'",
    "machine learning login password reset",
    "git config user.name",
    "AT&T; see below",
    "R&D; a & b; c",
    "&amp; &nbsp; &lt;b&gt; &#8217;tis",
    "x &lt; y &amp;&amp; y &gt; z",
    "\u00bd cup, 1\u20442",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
    "\u0441\u0430\u0445\u0430\u0440 \u0438 \u0441\u043e\u0434\u0430",
    "\u03b1 \u03b2 \u03b3 \u2192 \u03b4",
    "$TMP is not set, $XDG_CONFIG_HOME neither",
    "%TEMP% is not set",
    "smb: protocol error; nfs: server not responding",
    "Listening on port 8080 (pid 4242)",
    "HTTP/1.1 503 Service Unavailable",
    "exceeded your current quota, please check your plan and billing details",
    "This model's maximum context length is 128000 tokens",
    "rate_limit_exceeded: retry in 1.5s (limit 30000, used 29871)",
    "the tool call took 12.7s of 10s; 3/5 retries left",
    "line 3, column 14: unexpected '}' near 'agents:'",
    "cannot unmarshal string into Go struct field Config.models of type int",
    "signal: killed (core dumped)",
    "exit status 0xc0000005",
    "process 42 finished in 00:01:23.456 at 99% CPU",
    "TLS handshake timeout; x509: certificate has expired",
    "no space left on device: wrote 1024 of 4096 bytes",
    "UNIQUE constraint failed: sessions.id",
    "deadlock detected: T1 waits for T2",
    "git: 'psuh' is not a git command. Did you mean 'push'?",
    "Did you mean: 'append'? (attribute 'apend' of type list)",
    "100%|##########| 3/3 [00:01<00:00, 2.50it/s]",
    "cache hit: sha256 matches; 12 files changed, 3 insertions(+)",
)
_FAILING: tuple[Callable[[], object], ...] = (
    lambda: int("x"),
    lambda: float("1,5"),
    [].pop,
    lambda: {}["missing"],
    lambda: 1 / 0,
    lambda: None.missing,  # type: ignore[attr-defined]
    lambda: "a" + 1,  # type: ignore[operator]
    lambda: open("missing.yaml", encoding="utf-8"),  # noqa: SIM115
    lambda: json.loads('{"a": }'),
    lambda: compile("a b", "x.py", "exec"),
    b"\xff".decode,
    lambda: "\u20ac".encode("ascii"),
    lambda: __import__("no_such_module"),
    lambda: msgspec.json.decode(b"[1", type=int),
    iter(()).__next__,
    lambda: os.listdir("no/such/directory"),
)


def _raised() -> Iterator[str]:
    """What Python says of everyday mistakes."""
    for fail in _FAILING:
        try:
            fail()
        except Exception as error:  # noqa: PERF203 - each of them raises
            yield f"{type(error).__name__}: {error}"
            yield repr(error)


ORDINARY = tuple(
    dict.fromkeys(
        (
            *_MODELS.split(),
            *_TOOLS.split(),
            *_VERSIONS.split(),
            *_FLAGS.split(),
            *MESSAGES,
            *_raised(),
            *(os.strerror(number) for number in errno.errorcode),
            *errno.errorcode.values(),
            *(status.phrase for status in HTTPStatus),
            *(f"{status.value} {status.name}" for status in HTTPStatus),
            *(signal_.name for signal_ in signal.Signals),
            *sys.stdlib_module_names,
            *dir(builtins),
            *keyword.kwlist,
        )
    )
)
