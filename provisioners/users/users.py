"""Makes the users that the JSON in USERS lists, and gives them keys, groups and sudo. Prints what it changes."""

import grp
import json
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+|sk-ssh-ed25519@openssh\.com|sk-ecdsa-\S+) AAAA\S+( .*)?")
KNOWN = {"name", "keys", "groups", "shell", "comment", "sudo"}


def fail(message):
    print(f"users: {message}", file=sys.stderr)
    sys.exit(2)


def run(*words):
    print("+", " ".join(words))
    if subprocess.run(words).returncode != 0:
        fail(f"{words[0]} failed")


def checked(user):
    if not isinstance(user, dict) or not NAME.fullmatch(str(user.get("name", ""))):
        fail(f"not a user: {user!r}; give each a name of small letters, digits, - and _")
    if unknown := set(user) - KNOWN:
        fail(f"{user['name']}: unknown {', '.join(sorted(unknown))}; there are {', '.join(sorted(KNOWN))}")
    for key in user.get("keys", []):
        if not KEY.fullmatch(key.strip()):
            fail(f"{user['name']}: not a public SSH key: {key[:40]!r}")
    return user


def write(path, text, mode, owner):
    """Write a file where it differs, with its owner and mode from the first byte on."""
    if path.is_symlink() or (path.exists() and path.read_text() != text) or not path.exists():
        print(f"writing {path}")
        temporary = path.with_name(f".{path.name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        temporary.chmod(mode)
        os.chown(temporary, owner.pw_uid, owner.pw_gid)
        temporary.replace(path)


def apply(user, exclusive):
    name = user["name"]
    try:
        known = pwd.getpwnam(name)
    except KeyError:
        # A group of this name may be there already: Debian has `operator`.
        own = ["--gid", name] if any(group.gr_name == name for group in grp.getgrall()) else []
        shell, comment = user.get("shell", "/bin/bash"), user.get("comment", "")
        run("useradd", "--create-home", "--shell", shell, "--comment", comment, *own, name)
        known = pwd.getpwnam(name)
    if user.get("shell") and known.pw_shell != user["shell"]:
        run("usermod", "--shell", user["shell"], name)
    for group in user.get("groups", []):
        try:
            members = grp.getgrnam(group).gr_mem
        except KeyError:
            fail(f"{name}: there is no group '{group}'")
        if name not in members:
            run("usermod", "--append", "--groups", group, name)
    keys = [key.strip() for key in user.get("keys", [])]
    if keys or exclusive:
        folder = Path(known.pw_dir) / ".ssh"
        if folder.is_symlink():
            fail(f"{name}: {folder} is a link")
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, known.pw_uid, known.pw_gid)
        file = folder / "authorized_keys"
        before = [] if exclusive or not file.exists() else file.read_text().splitlines()
        write(file, "".join(f"{line}\n" for line in dict.fromkeys([*before, *keys])), 0o600, known)
    rule = Path(f"/etc/sudoers.d/90-imagepipe-{name}")
    if user.get("sudo"):
        write(rule, f"{name} ALL=(ALL) NOPASSWD:ALL\n", 0o440, pwd.getpwnam("root"))
        run("visudo", "--check", "--quiet", "--file", str(rule))
    elif "sudo" in user and rule.exists():
        print(f"removing {rule}")
        rule.unlink()


users = [checked(user) for user in json.loads(os.environ["USERS"])]
for user in users:
    apply(user, os.environ["EXCLUSIVE"] == "yes")
