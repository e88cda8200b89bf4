"""The accounts of one store, with their access keys, policies and organizations."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from imagepipe.iam.conditions import NotUnderstood
from imagepipe.iam.evaluate import rules_of
from imagepipe.local.aws.authentication.signature import Identity, Secret
from imagepipe.local.aws.ec2.sharing import ACCOUNT, ORGANIZATION
from imagepipe.local.aws.protocol.errors import AwsError, invalid
from imagepipe.local.aws.state.database import Database
from imagepipe.local.aws.state.records import ANYWHERE, AccessKey, Account
from imagepipe.local.store import new_key_id


class Accounts:
    """The store's first accounts, whose keys are outside the database, and those that were added."""

    def __init__(self, database: Database, first: Mapping[str, Secret]) -> None:
        self._database = database
        self._first = first

    def secret(self, access_key_id: str) -> Secret | None:
        """Find the secret of an access key id: an account's own key, or that of an assumed role."""
        if access_key_id in self._first:
            return self._first[access_key_id]
        key = self._database.access_keys.get(access_key_id)
        if key is not None:
            return Secret(key.secret_access_key, key.account)
        session = self._database.sessions.get(access_key_id)
        if session is not None:
            return Secret(session.secret_access_key, session.account, session.session_token, session.expires)
        for account in self._database.accounts:
            if account.access_key_id == access_key_id:
                return Secret(account.secret_access_key, account.id)
        return None

    def require_first(self, access_key_id: str) -> None:
        """Raise AwsError unless the key is one of the store's first ones: only those may see the keys of others."""
        if access_key_id not in self._first:
            raise AwsError("AccessDenied", "Only the store's first account may ask for that", status=403)

    def arn_of(self, identity: Identity) -> str:
        """Return the caller's ARN: a role's session, a user if the key has a policy, or the account itself."""
        session = self._database.sessions.get(identity.access_key_id)
        if session is not None:
            return session.arn
        is_user = self._database.access_keys.get(identity.access_key_id) is not None
        return f"arn:aws:iam::{identity.account}:{f'user/{identity.access_key_id}' if is_user else 'root'}"

    def names_of(self, account: str) -> set[str]:
        """List the names of an account in permissions: its id, its organization and units, and `all`."""
        known = self._database.accounts.get(account)
        return {"all", account, *(known.memberships if known else ())}

    def listed(self) -> list[dict[str, Any]]:
        """List all accounts with their keys; the first ones have none here."""
        firsts = dict.fromkeys(secret.account_id for secret in self._first.values())
        rows = {account: Account(id=account, account=account, region=ANYWHERE) for account in firsts}
        rows |= {account.id: account for account in self._database.accounts}
        return [to_api(account) for account in rows.values()]

    def add(self, account_id: str | None, memberships: Iterable[str]) -> dict[str, Any]:
        """Make an account with keys of its own, or move an existing one into other organizations.

        Raises AwsError for an invalid account id, or an invalid ARN of an organization or unit.
        """
        names = tuple(dict.fromkeys(memberships))
        for name in names:
            if not ORGANIZATION.fullmatch(name):
                raise invalid(f"{name!r} is not the ARN of an organization or of an organizational unit")
        if account_id is not None and not ACCOUNT.fullmatch(account_id):
            raise invalid(f"{account_id!r} is not an account id: twelve digits")
        with self._database.change():
            account = self._made(account_id or self._free_id(), names)
            self._database.put(account)
        return to_api(account)

    def add_key(self, account_id: str, policy: str) -> dict[str, Any]:
        """Make another access key for an account, which may do what a policy allows.

        Raises AwsError if the account does not exist, or the policy is not understood.
        """
        if account_id not in {row["account"] for row in self.listed()}:
            raise invalid(f"account {account_id!r} does not exist")
        try:
            rules_of(policy)
        except NotUnderstood as error:
            raise AwsError("MalformedPolicyDocument", str(error)) from error
        key = AccessKey(
            id=new_key_id(),
            account=account_id,
            region=ANYWHERE,
            secret_access_key=secrets.token_urlsafe(30),
            policy=policy,
        )
        with self._database.change():
            self._database.put(key)
        return {"account": account_id, "access_key_id": key.id, "secret_access_key": key.secret_access_key}

    def _made(self, account_id: str, memberships: tuple[str, ...]) -> Account:
        old = self._database.accounts.get(account_id)
        has_keys = old is not None or any(secret.account_id == account_id for secret in self._first.values())
        if old is not None:
            key_id, key = old.access_key_id, old.secret_access_key
        elif has_keys:
            key_id, key = "", ""
        else:
            key_id, key = new_key_id(), secrets.token_urlsafe(30)
        return Account(
            id=account_id,
            account=account_id,
            region=ANYWHERE,
            access_key_id=key_id,
            secret_access_key=key,
            memberships=memberships,
        )

    def _free_id(self) -> str:
        taken = {row["account"] for row in self.listed()}
        while (made := f"{secrets.randbelow(9 * 10**11) + 10**11}") in taken:
            pass
        return made


def to_api(account: Account) -> dict[str, Any]:
    """Describe an account for the cloud's own interface."""
    return {
        "account": account.id,
        "access_key_id": account.access_key_id,
        "secret_access_key": account.secret_access_key,
        "memberships": list(account.memberships),
    }
