"""SSM parameters of one region, in which AWS and others publish image ids."""

from __future__ import annotations

from typing import Any

from imagepipe.cloud.errors import translating
from imagepipe.cloud.session import Session
from imagepipe.errors import CloudError


class Parameters:
    """Parameters of one region. The client is created on first use."""

    def __init__(self, session: Session, region: str) -> None:
        self._session = session
        self.region = region

    @property
    def _client(self) -> Any:
        return self._session.client("ssm", self.region)

    def value(self, name: str) -> str | None:
        """Return the value of a parameter; None if it, its version or its label does not exist."""
        try:
            with translating(f"reading SSM parameter {name} in {self.region}", service="ssm"):
                return str(self._client.get_parameter(Name=name)["Parameter"]["Value"])
        except CloudError as error:
            if error.code in ("ParameterNotFound", "ParameterVersionNotFound"):
                return None
            raise
