"""The table of rules: name, description, advice and places of each.

Sources: the manual pages of the programs; for cloud-init its "Boot stages" and "Instance metadata" pages; for systemd
machine-id(5), systemd-random-seed.service(8) and "Building Images Safely" (systemd.io); November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

HEAD_BYTES = 1 << 20
"""Number of bytes at the beginning of a file that `matches` gets."""


def _is_not_blank(head: bytes) -> bool:
    return bool(head.strip())


def _has(pattern: bytes) -> Callable[[bytes], bool]:
    compiled = re.compile(pattern, re.MULTILINE)
    return lambda head: compiled.search(head) is not None


_has_key = _has(rb"^[ \t]*[^#\s]")


def _is_machine_id(head: bytes) -> bool:
    return head.strip() not in (b"", b"uninitialized")


class Place(NamedTuple):
    """A pattern for paths of files that violate a rule unless they are empty."""

    pattern: str
    """From the root if it begins with a slash, otherwise in any folder; `*` stands for anything but a slash, `**` for
    anything."""
    matches: Callable[[bytes], bool] = _is_not_blank
    """Function that returns whether a file has real content, not only blanks or comments, given its first bytes."""


class Rule(NamedTuple):
    """One kind of finding."""

    name: str
    what: str
    advice: str
    """Advice for the hint."""
    places: tuple[Place, ...] = ()
    """Places of the rule; empty if it is recognized by content in any file."""
    covers: tuple[str, ...] = ()
    """Content rules that are not reported for such a file too, because this finding is enough."""
    is_made_by_boot: bool = False
    """Every boot creates such files, so on an instance they say nothing about its image."""


def _places(text: str) -> tuple[Place, ...]:
    return tuple(Place(word) for word in text.split())


LEFT_BY_SCRUB = "the scrub deletes it; something wrote it again later, or keeps it under another name"

RULES = (
    Rule(
        "builder-key",
        "the public key that the build logged in with",
        "delete it: a provisioning step copied it to a place that the scrub does not check",
        is_made_by_boot=True,
    ),
    Rule(
        "host-key",
        "a private SSH host key: every instance would have the same",
        LEFT_BY_SCRUB,
        _places("/etc/ssh/ssh_host_*_key /etc/dropbear/dropbear_*_host_key"),
        covers=("private-key",),
        is_made_by_boot=True,
    ),
    Rule(
        "authorized-keys",
        "a key that may log in to every instance",
        "pass keys at launch (key pair, user data), or allow a key that is meant to be there",
        (
            Place(".ssh/authorized_keys", _has_key),
            Place(".ssh/authorized_keys2", _has_key),
            Place("/etc/ssh/authorized_keys", _has_key),
            Place("/etc/ssh/authorized_keys/**", _has_key),
            Place("/etc/ssh/authorized_keys.d/**", _has_key),
            Place("/etc/dropbear/authorized_keys", _has_key),
        ),
        is_made_by_boot=True,
    ),
    Rule(
        "shell-history",
        "the history of a shell or another prompt",
        "delete it in the last provisioning step",
        _places(
            ".bash_history .zsh_history .zhistory .sh_history .ash_history .ksh_history .history .python_history"
            " .node_repl_history .mysql_history .mariadb_history .psql_history .sqlite_history .rediscli_history"
            " .mongo_history .dbshell .irb_history .php_history .local/share/fish/fish_history"
            " .local/share/powershell/PSReadLine/*.txt .ipython/**/history.sqlite"
        ),
    ),
    Rule(
        "editor-history",
        "the history of an editor, a pager or wget",
        "delete it in the last provisioning step",
        _places(
            ".viminfo .lesshst .local/state/lesshst .wget-hsts .nano_history .local/share/nano/search_history"
            " .local/state/nano/search_history .vim/.netrwhist .vim/undo/** .local/share/nvim/shada/*"
            " .local/state/nvim/shada/* .emacs.d/auto-save-list/* .recently-used .swp .*.swp"
        ),
    ),
    Rule(
        "user-data",
        "user data of the instance that was captured",
        LEFT_BY_SCRUB,
        _places(
            "/var/lib/cloud/instances/*/user-data* /var/lib/cloud/instances/*/vendor-data*"
            " /var/lib/cloud/instances/*/vendor-data2* /var/lib/cloud/instances/*/cloud-config*"
            " /var/lib/cloud/instances/*/scripts/** /var/lib/cloud/instance/user-data*"
        ),
        covers=("private-key",),
        is_made_by_boot=True,
    ),
    Rule(
        "cloud-init-data",
        "cloud-init's data about the instance that was captured",
        LEFT_BY_SCRUB,
        _places("/var/lib/cloud/instance/** /var/lib/cloud/instances/** /var/lib/cloud/data/** /var/lib/cloud/sem/**"),
        is_made_by_boot=True,
    ),
    Rule(
        "machine-id",
        "the machine's id: every instance would have the same",
        "empty /etc/machine-id; the next boot makes a new one",
        (Place("/etc/machine-id", _is_machine_id), Place("/var/lib/dbus/machine-id", _is_machine_id)),
        is_made_by_boot=True,
    ),
    Rule(
        "random-seed",
        "the seed of the random numbers of every instance",
        LEFT_BY_SCRUB,
        _places(
            "/var/lib/systemd/random-seed /var/lib/urandom/random-seed /var/lib/random-seed /var/lib/seedrng/seed.*"
            " /boot/loader/random-seed /boot/efi/loader/random-seed /efi/loader/random-seed"
        ),
        is_made_by_boot=True,
    ),
    Rule(
        "dhcp-lease",
        "a DHCP lease from the network of the build",
        LEFT_BY_SCRUB,
        _places(
            "/var/lib/dhcp/*.lease* /var/lib/dhclient/*.lease* /var/lib/dhcpcd/*.lease*"
            " /var/lib/NetworkManager/*.lease /var/lib/wicked/lease-*"
        ),
        is_made_by_boot=True,
    ),
    Rule(
        "log",
        "a log of the build",
        "empty it in the last provisioning step, and stop the program that writes it",
        _places(
            "/var/log/auth.log* /var/log/secure* /var/log/syslog* /var/log/messages* /var/log/daemon.log*"
            " /var/log/kern.log* /var/log/user.log* /var/log/debug* /var/log/cron* /var/log/maillog* /var/log/mail.log*"
            " /var/log/boot.log* /var/log/sudo.log* /var/log/audit/audit.log* /var/log/cloud-init*.log*"
            " /var/log/amazon/**"
        ),
        is_made_by_boot=True,
    ),
    Rule(
        "journal",
        "the journal of the build",
        LEFT_BY_SCRUB,
        _places("/var/log/journal/**"),
        is_made_by_boot=True,
    ),
    Rule(
        "login-record",
        "a record of logins during the build",
        LEFT_BY_SCRUB,
        (
            *_places(
                "/var/log/wtmp* /var/log/btmp* /var/log/utmp /var/lib/wtmpdb/wtmp.db /var/lib/lastlog/lastlog2.db"
            ),
            Place("/var/log/lastlog", lambda head: bool(head.strip(b"\0"))),  # sparse, with a record for each user
            Place("/var/log/faillog", lambda head: bool(head.strip(b"\0"))),
            Place("/var/log/tallylog", lambda head: bool(head.strip(b"\0"))),
        ),
        is_made_by_boot=True,
    ),
    Rule(
        "core-dump",
        "a dump of a process's memory, which may contain secrets",
        "delete it; find out what crashed",
        _places("/var/lib/systemd/coredump/** /var/crash/** /var/spool/abrt/**"),
    ),
    Rule(
        "aws-credentials",
        "AWS credentials",
        "delete it: an instance profile gives the step its permissions, and leaves no file",
        _places(".aws/credentials .aws/sso/cache/* .aws/cli/cache/* .aws/login/cache/* .boto .s3cfg .passwd-s3fs"),
    ),
    Rule(
        "credentials",
        "a file with credentials",
        "delete it in the step that needed it, or pass them through env, which is never on a disk",
        (
            Place(".docker/config.json", _has(rb'"(auth|identitytoken|registrytoken|password)"\s*:\s*"[^"]')),
            Place(".config/containers/auth.json", _has(rb'"auth"\s*:\s*"[^"]')),
            Place(".dockercfg", _has(rb'"auth"\s*:\s*"[^"]')),
            Place(".netrc", _has(rb"\bpassword\s+\S")),
            Place("_netrc", _has(rb"\bpassword\s+\S")),
            Place("/etc/apt/auth.conf", _has(rb"\bpassword\s+\S")),
            Place("/etc/apt/auth.conf.d/*", _has(rb"\bpassword\s+\S")),
            Place(".git-credentials", _has(rb"://[^/\s:@]*:[^/\s@]+@")),
            Place(".config/git/credentials", _has(rb"://[^/\s:@]*:[^/\s@]+@")),
            Place(".pgpass", _has_key),
            Place(".my.cnf", _has(rb"^\s*password\s*=\s*\S")),
            Place(".mylogin.cnf"),
            Place(".npmrc", _has(rb"_(authToken|auth|password)\s*=\s*\S")),
            Place(".yarnrc.yml", _has(rb"npmAuth(Token|Ident)\s*:\s*\S")),
            Place(".pypirc", _has(rb"^\s*password\s*[=:]\s*\S")),
            Place(".config/pip/pip.conf", _has(rb"://[^/\s:@]*:[^/\s@]+@")),
            Place(".pip/pip.conf", _has(rb"://[^/\s:@]*:[^/\s@]+@")),
            Place("/etc/pip.conf", _has(rb"://[^/\s:@]*:[^/\s@]+@")),
            Place(".gem/credentials"),
            Place(".cargo/credentials", _has(rb"^\s*token\s*=\s*\S")),
            Place(".cargo/credentials.toml", _has(rb"^\s*token\s*=\s*\S")),
            Place(".composer/auth.json", _has(rb'"[^"]*(token|password|oauth)[^"]*"\s*:\s*[{"][^}"]')),
            Place(".m2/settings.xml", _has(rb"<(password|passphrase)>[^<$]")),
            Place(".kube/config", _has(rb"^[\s-]*(token|password|client-key-data)\s*:\s*\S")),
            *_places(
                ".config/gcloud/credentials.db .config/gcloud/access_tokens.db .config/gcloud/legacy_credentials/**"
            ),
            Place(".config/gcloud/application_default_credentials.json"),
            *_places(".azure/accessTokens.json .azure/msal_token_cache* .azure/service_principal_entries*"),
            Place(".config/gh/hosts.yml", _has(rb"oauth_token\s*:\s*\S")),
            Place(".config/hub", _has(rb"oauth_token\s*:\s*\S")),
            Place(".config/glab-cli/config.yml", _has(rb"^\s*token\s*:\s*\S")),
            Place(".vault-token"),
            Place(".terraformrc", _has(rb"^\s*token\s*=\s*\S")),
            Place(".terraform.d/credentials.tfrc.json"),
            Place(".config/rclone/rclone.conf", _has(rb"^\s*(pass|token|secret_access_key)\s*=\s*\S")),
            Place(".smbcredentials"),
        ),
    ),
    Rule(
        "private-key",
        "a private key, in PEM",
        "delete it; if every instance needs one, create it at the first boot",
    ),
    Rule(
        "aws-key",
        "an AWS secret access key",
        "delete it, and revoke it: it was on a disk; an instance profile gives the step its permissions",
    ),
    Rule(
        "build-secret",
        "the value of a sensitive variable of the build",
        "a step wrote it to the disk: pass it through env, and keep it out of installed files",
    ),
    Rule(
        "unreadable",
        "a file that could not be read, so its contents are unknown",
        "check the file system: it may be damaged",
    ),
)
BY_NAME = {rule.name: rule for rule in RULES}
ON_NEW_INSTANCE = tuple(rule.name for rule in RULES if not rule.is_made_by_boot)
"""Rules that also apply on an instance of the image."""


class Match(NamedTuple):
    """The rule that a path violates."""

    rule: Rule
    place: Place


def may_match(folder: str) -> bool:
    """Return whether a file directly in this folder can violate a rule, whatever its name; see also `is_telling`."""
    return folder.partition("/")[2].partition("/")[0] in _ROOTS or any(text in f"{folder}/" for text in _BEGINNINGS)


def is_telling(name: str) -> bool:
    """Return whether a file of this name can violate a rule in any folder."""
    return name.startswith(_FIRST)


def match(path: str) -> Match | None:
    """Return the first rule for files at this absolute path; None for most paths."""
    found = _FROM_ROOT.fullmatch(path)
    if found is None and any(text in path for text in _BEGINNINGS):
        found = _ANYWHERE.search(path)
    return _MATCHES[int(found.lastgroup[1:])] if found and found.lastgroup else None


def _regex(pattern: str) -> str:
    words = {"**": ".*", "*": "[^/]*"}
    return "".join(words.get(part) or re.escape(part) for part in re.split(r"(\*\*|\*)", pattern))


_MATCHES = [Match(rule, place) for rule in RULES for place in rule.places]


def _all(*, rooted: bool) -> str:
    return "|".join(
        f"(?P<p{number}>{_regex(each.place.pattern)})"
        for number, each in enumerate(_MATCHES)
        if each.place.pattern.startswith("/") is rooted
    )


_FROM_ROOT = re.compile(_all(rooted=True), re.DOTALL)
_ANYWHERE = re.compile(rf"/(?:{_all(rooted=False)})\Z", re.DOTALL)
_BEGINNINGS = frozenset(
    "/." if each.place.pattern.startswith(".") else "/" + each.place.pattern.partition("*")[0]
    for each in _MATCHES
    if not each.place.pattern.startswith("/")
)
"""Every path that matches `_ANYWHERE` contains one of these texts. Most paths do not, so the search is skipped."""
_FIRST = tuple(text[1:] for text in _BEGINNINGS)
_ROOTS = frozenset({"", *(each.place.pattern.split("/")[1] for each in _MATCHES if each.place.pattern.startswith("/"))})
