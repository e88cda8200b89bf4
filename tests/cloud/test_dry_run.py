"""DryRun calls, as errors describe them."""

from __future__ import annotations

from imagepipe.cloud.dry_run import DryRun, PermissionProbe
from tests.account import Account


def test_an_error_names_the_permission_that_is_checked(account: Account) -> None:
    account.fault("refuse", "CreateKeyPair", code="UnauthorizedOperation", status=403)
    account.fault("refuse", "ImportKeyPair", code="UnauthorizedOperation", status=403)
    asked = PermissionProbe(
        makes_key=True, makes_group=True, vpc=None, shares=False, copies=False, source_region="us-east-1"
    )
    messages = [str(error) for error in DryRun(account.regions.session, "us-east-1").denied(asked)]
    assert [message for message in messages if message.startswith("checking the permission ec2:ImportKeyPair in us-")]
