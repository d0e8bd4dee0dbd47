"""What is private never comes out, and what is not comes out as it was."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry import privacy
from telemetry.privacy import Scrubber, identity_from
from tests.support.canaries import (
    CANARIES,
    DISGUISES,
    HOMES,
    KEYS,
    SURROUNDINGS,
    USERS,
    undisguised,
)
from tests.support.examples import examples


REPOSITORY = Path(__file__).resolve().parents[2]
SCRUBBER = Scrubber(homes=HOMES, users=USERS)

# What a session really says. `free` changes none of it either.
ORDINARY = (
    # The beginning of a token within a word.
    *("configd_2026112917", "weighp_1234567890", "blogho_0000000001"),
    *("shell", "root", "call", "run", "start", "end", "", " ", "-1", "n/a", "a/b", "/"),
    *("//", "// note", "1 / 2", "and/or", "24/7", "text/html", "*/*", "I/O", "km/h"),
    *("config.yaml", "agents/dev.yaml", "./x.py", "../x", "a//b", "s/foo/bar/", "src/"),
    *(
        "1.2.3",
        "v0.4.1-rc.1",
        "1.2.3.dev4+g0a1b2c3",
        "2.0.0b1",
        "v1.2.3.4",
        "~5 minutes",
    ),
    *("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "claude-sonnet-4", "o3", "llama3.1:8b"),
    *("claude-3-5-sonnet-20241022", "docker/cagent:latest", "gemini-2.0-flash-exp"),
    *("ghcr.io/org/img:v1", "pkg@1.2.3", "@scope/name", "actions/checkout@v4"),
    *("https://example.com", "https://example.com/path", "http://localhost:8080/v1"),
    *("https://example.com/a/b.html.", "see https://example.com/x, then go"),
    *("connection refused", "exit status 1", "exit code 137", "EOF", "HTTP 429"),
    *("context deadline exceeded", "permission denied", "no such file or directory"),
    *("invalid token", "token expired", "unexpected token", "secret not found"),
    *("password required", "missing API key", "basic authentication", "bearer of news"),
    *(
        "InvalidTokenError: expired",
        "PasswordError: no",
        "max_tokens=4096",
        "tokens: 12",
    ),
    *(
        "input_tokens: 10, output_tokens: 20",
        "token_count=3",
        "tokenizer.json: missing",
    ),
    *("author: nobody", "design: blue", "keyboard: us", "monkey=1", "primary key: id"),
    *(
        "sk-learn-contrib",
        "task-runner-agent-2",
        "npm_config_registry",
        "hf_hub_download",
    ),
    *(
        "disk-usage",
        "whisper-1",
        "get_user_by_id",
        "read_multiple_files",
        "fc-cache -f",
    ),
    *(
        "10:30",
        "10:30:45.123",
        "2024-10-22",
        "2024-10-22T10:30:00Z",
        "2024-10-22 10:30",
    ),
    *("std::string", "foo::bar::Baz", "a ? b : c", "x = y", "x == y", "x=1;y=2", "50%"),
    *(
        "100% done",
        "%d of %s",
        "C++",
        "C#",
        ".NET",
        "#42",
        "$5",
        "{}",
        "[1, 2]",
        "<br />",
    ),
    *(
        "<b>bold</b>",
        "</div>",
        "a -> b",
        "a => b",
        "*.py",
        "**",
        "`code`",
        "it's",
        '"q"',
    ),
    *("\\d+\\.\\w", "line\nbreak", "tab\there", "50/50", "@alicia", "malice", "Alicea"),
    *("en_US.UTF-8", "de-DE", "x86_64-linux-gnu", "darwin/arm64", "utf-8", "sha256"),
    *("ThisIsAVeryLongCamelCaseIdentifierName", "test_torn_tail_costs_only_itself"),
    *("com.example.application.server", "key1=value1,key2=value2", "ci=github-actions"),
    *(
        "错误",
        "连接被拒绝",
        "和/或",
        "エラー: 接続拒否",
        "오류",
        "ошибка",
        "naïve café",
    ),
    *(
        "👍",
        "👩‍👩‍👧",
        "日本語/英語",
        "…",
        "½",
        "ﬁne",
        "e\u0301",
        "\u200b",
        "\x1b[1mhi\x1b[0m",
    ),
    *("<path>", "<user> said <secret>", "https://<secret>@example.com/x?<query>"),
    *("<path>:3:4", "password=<secret>", "Authorization: <secret>", "<scrubbed>"),
)
# Only free text loses these: sessions and commits have such names.
IDENTIFIERS = (
    "11111111-2222-4333-8444-555555555555",
    "session 0192f3a4-7b5c-7d3e-8f2a-1b4c5d6e7f80 ended",
    "9c410f88df9c4f828322d2272b5fa05c",
    "4762399acad926f16c52d926f16c52aa3e1f9b0d",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "203.0.113.77:8443",
    "dial tcp [2001:db8::1]:443: connection refused",
    "k3jH8sLq0PzXw2Vb7NmR5tYc",
)
# How it reads afterwards, in free text.
READS = {
    "/home/alice/x.py:3:4": "<path>:3:4",
    "open /home/alice/a.yaml: no such file": "open <path>: no such file",
    'File "/home/alice/my x.py", line 3': 'File "<path>", line 3',
    "cannot read /home/bob/a because b.yaml is bad": "cannot read <path> because b.yaml is bad",
    "(see /etc/passwd).": "(see <path>).",
    "PATH=/usr/bin:/opt/x/bin": "PATH=<path>:<path>",
    "gcc -I/usr/include 2>/dev/null": "gcc -I<path> 2><path>",
    "docs/alice/x.md": "docs/<user>/x.md",
    "Permission denied for ALICE.": "Permission denied for <user>.",
    "alice_backup alice-laptop alice2": "<user>_backup <user>-laptop alice2",
    "mail bob@example.com, please": "mail <email>, please",
    "git@github.com:org/repo.git": "<email>:org/repo.git",
    "https://bob:pw@example.com:8443/x?y=z#w": "https://<secret>@example.com:8443/x?<query>",
    # A fuzzer's: the blank parts them, once the control character is dropped.
    "https://\x05 bob@example.com": "https://\x05 <email>",
    "https://github.com/alice/repo": "https://github.com/<user>/repo",
    "https://example.com/Users/bob/x": "https://example.com<path>",
    "unix:///var/run/docker.sock": "unix://<path>",
    '{"api_key": "abc", "n": 1}': '{"api_key": "<secret>", "n": 1}',
    "login --password hunter2 --force": "login --password <secret> --force",
    "Authorization: Bearer abc": "Authorization: <secret>",
    "password= apiKey: `abc`": "password= <secret>: `<secret>`",  # a fuzzer's
    "AWS_SECRET_ACCESS_KEY=abc/def aws s3 ls": "AWS_SECRET_ACCESS_KEY=<secret> aws s3 ls",
    "dial tcp 10.0.0.1:443: refused": "dial tcp <ip>: refused",
    "dial tcp [fe80::1%eth0]:443: refused": "dial tcp <ip>: refused",
    "id 11111111-2222-4333-8444-555555555555": "id <random>",
    "用户alice不存在": "用户<user>不存在",
}


def leaks(part: int, undisguised_part: int = 1) -> list[tuple[str, str, str]]:
    """Canaries that come out: of each disguise in a different `part`th of all
    surroundings, undisguised in a different `undisguised_part`th for each canary."""
    found = []
    for turn, canary in enumerate(CANARIES):
        for number, (name, disguise) in enumerate(DISGUISES.items()):
            planted = disguise(canary.text)
            some = (
                SURROUNDINGS[number % part :: part]
                if number
                else SURROUNDINGS[turn % undisguised_part :: undisguised_part]
            )
            for around in some:
                text = around.format(planted)
                for scrub in (SCRUBBER.text, SCRUBBER.free_text)[canary.free :]:
                    left = undisguised(scrub(text))
                    if any(trace.lower() in left for trace in canary.traces):
                        found.append((canary.name, name, text))
    return found


def test_what_was_planted_never_comes_out() -> None:
    """One leak is one too many, and no escape makes it another secret.

    A third of all surroundings, and all of them undisguised, are tried in
    `proofs/test_privacy_time.py`.
    """
    assert leaks(18, undisguised_part=6) == []


def test_ordinary_text_comes_through() -> None:
    """An event that says `<path>` everywhere says nothing."""
    texts = [*ORDINARY, *IDENTIFIERS]
    assert [t for t in texts if SCRUBBER.text(t) is not t] == []
    assert [t for t in ORDINARY if SCRUBBER.free_text(t) is not t] == []


def test_only_free_text_loses_addresses_and_random_strings() -> None:
    """Sessions are counted by their ids; errors quote other people's."""
    assert [t for t in IDENTIFIERS if SCRUBBER.free_text(t) == t] == []


def test_what_is_left_can_be_read() -> None:
    """What went wrong has to be seen without what it went wrong with."""
    assert {text: SCRUBBER.free_text(text) for text in READS} == READS


def test_a_path_that_python_or_a_gnu_tool_quotes_is_cut_to_its_quote() -> None:
    """Blanks, other quotes and brackets are letters of a path there."""
    for path in (
        "/srv/Bob's files/tax return.pdf",
        "/Volumes/Bob's Backup/tax return",
        "/home/alice/Bob's Mac/tax return.pdf",
        "/srv/a|b c/tax return",
        "/srv/a<b c/tax return",
        '/srv/it\'s "so"/tax return',
    ):
        for error in (FileNotFoundError(2, "No such file", path), KeyError(Path(path))):
            out = SCRUBBER.free_text(str(error))
            assert "return" not in out, out
            assert "<path>" in out, out
    for begin, end in ("\u2018\u2019", "\u201c\u201d", "\xab\xbb"):
        text = f"mv: {begin}/srv/acme corp/tax return{end} to {begin}/srv/b{end} failed"
        assert SCRUBBER.free_text(text) == (
            f"mv: {begin}<path>{end} to {begin}<path>{end} failed"
        )


def test_a_name_is_the_same_name_in_both_normal_forms() -> None:
    """A file system gives back another normal form than it was given."""
    for user in ("Jos\u00e9", "Jose\u0301"):
        scrubber = Scrubber(homes=(f"/home/{user}",), users=(user,))
        for form in ("NFC", "NFD"):
            for text in ("hola jos\u00e9!", "hola JOS\u00c9!"):
                spelled = unicodedata.normalize(form, text)
                assert scrubber.text(spelled) == "hola <user>!"
        assert scrubber.text("joseph") == "joseph"


def test_a_name_of_several_parts_is_found_however_they_are_divided() -> None:
    """Mail, login and display name differ by a sign."""
    scrubber = Scrubber(homes=(), users=(r"CORP\alice.smith", "王小明"))
    for text in ("alice.smith", "Alice Smith", "ALICE_SMITH", "alice-smith", "王小明"):
        assert scrubber.text(f"by {text}, today") == "by <user>, today"
    assert scrubber.text("用户王小明不存在") == "用户<user>不存在"
    assert scrubber.text("alice and smith") == "alice and smith"


def test_a_name_that_is_a_word_stays() -> None:
    """On a build machine everybody is `root`; in an event that word means the agent."""
    for user in ("", "a", "al", "root", "Admin", "test", "user1", "max"):
        scrubber = Scrubber(homes=("/", "/root", f"/home/{user}"), users=(user,))
        assert scrubber.text(f"{user} max root admin") == f"{user} max root admin"
        assert scrubber.text(f"/home/{user or 'x'}/y") == "<path>"


def test_an_unusual_home_is_found_without_its_root() -> None:
    """Not every home is under /home, and not every text gives the whole path."""
    scrubber = Scrubber(homes=("/data/people/x9", "D:\\Leute\\Eva Maria"), users=())
    assert scrubber.text("in mnt/data/people/x9/y.txt") == "in mnt<path>"
    assert scrubber.text("D:\\Leute\\Eva Maria\\z.txt: bad") == "<path>: bad"
    assert scrubber.text("d:/leute/eva maria") == "<path>"


def test_identity_is_what_the_environment_gives_away() -> None:
    """Each name once, and the home's own name with them."""
    posix = {
        "HOME": "/home/alice/",
        "USER": "alice",
        "LOGNAME": "alice",
        "SUDO_USER": "bob",
    }
    assert identity_from(posix) == (("/home/alice/",), ("alice", "bob"))
    windows = {
        "USERPROFILE": r"C:\Users\Alice Smith",
        "USERNAME": "asmith",
        "HOMEDRIVE": "H:",
        "HOMEPATH": r"\alice",
        "COMPUTERNAME": "PC7",
    }
    homes, users = identity_from(windows)
    assert homes == (r"C:\Users\Alice Smith", r"H:\alice")
    assert users == ("asmith", "Alice Smith", "alice")
    assert identity_from({}) == ((), ())
    assert identity_from({"HOME": "/"}) == (("/",), ())


def test_a_secret_is_known_by_its_name() -> None:
    """The names of a dict say what no text says."""
    for name in ("password", "API_KEY", "authorization", "Cookie"):
        assert SCRUBBER.names_secret(name), name
    for name in ("token_count", "monkey", "author", ""):
        assert not SCRUBBER.names_secret(name), name
    value = {"a": ["x", {"b": "y", "c": ""}], "n": 1, "pin": 4711923, "none": None}
    assert privacy.hidden(value) == {
        "a": ["<secret>", {"b": "<secret>", "c": ""}],
        "n": 1,
        "pin": "<secret>",
        "none": None,
    }


def test_a_secret_is_known_by_the_option_before_it() -> None:
    """A list of arguments is one string to the shell, and several to us."""
    scrubber = Scrubber(homes=(), users=())
    assert scrubber.behind_options(["-u", "me:hunter", "-u", "x"])[1:] == [
        "<secret>",
        "-u",
        "x",
    ]
    for option in ("--password", "-token", "--api-key", "--pass"):
        items = ["run", option, "hunter", "--keep", "x"]
        assert scrubber.behind_options(items) == [
            "run",
            option,
            "<secret>",
            "--keep",
            "x",
        ]
        for whole in (
            [option],
            [option, "--x"],
            [f"{option}-count=1", "x"],
            ["-u", "x"],
        ):
            assert scrubber.behind_options(whole) is whole


# Pieces that finders look for, so that drawn texts are nearly something.
PIECES = st.one_of(
    st.sampled_from([c.text for c in CANARIES]),
    st.sampled_from(
        [disguise(c.text) for c in KEYS for disguise in DISGUISES.values()]
    ),
    st.sampled_from(list("/\\@:=~%.-_?#&'\"`<>()[]{},; \n\r\t\0\x1b$|+*")),
    st.sampled_from(
        ["home", "alice", "token", "password", "://", "file:", "sk-", "eyJ"]
    ),
    st.sampled_from(
        ["%2F", "\\n", "\\u0041", "\u200b", "\uff41", "--", "::", "1.", "<path>"]
    ),
    st.text(max_size=8),
    st.text(st.characters(categories=["Cs", "Cf", "Mn", "Nd"]), max_size=4),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@settings(max_examples=examples(300), deadline=None)
@given(text=TEXTS)
def test_scrubbing_twice_is_scrubbing_once(text: str) -> None:
    """A tag is scrubbed alone, then with its event; a retry must say the same."""
    for scrub in (SCRUBBER.text, SCRUBBER.free_text):
        once = scrub(text)
        assert scrub(once) == once
        assert len(once) <= 2 * len(text) + 32


def test_a_text_of_nothing_but_private_parts_is_replaced_whole() -> None:
    """To cut ten thousand paths takes longer than they are worth."""
    assert SCRUBBER.text("/ab /cd " * 10_000) == "<scrubbed>"
    assert SCRUBBER.text("/ab /cd " * 1_000) == "<path> <path> " * 1_000


def test_every_placeholder_is_in_the_table() -> None:
    """Who reads the events finds there what each of them means."""
    table = set(re.findall(r"`(<\w+>)`", str(privacy.__doc__)))
    used = set()
    for module in ("rules", "plain", "scrub"):
        code = (REPOSITORY / "telemetry" / "privacy" / f"{module}.py").read_text()
        used |= set(re.findall(r'"(<\w+>)"', code))
    assert used == table
