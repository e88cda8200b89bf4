"""SSM parameters of one region: where AWS and others publish the ids of images."""

from __future__ import annotations

from typing import Any

from imagepipe.cloud.errors import translating
from imagepipe.cloud.session import Session
from imagepipe.errors import CloudError


class Parameters:
    """Parameters of one region. Its client is made when the first is asked for."""

    def __init__(self, session: Session, region: str) -> None:
        self._session = session
        self.region = region

    @property
    def _client(self) -> Any:
        return self._session.client("ssm", self.region)

    def value(self, name: str) -> str | None:
        """The value of a parameter; None where there is none of this name."""
        try:
            with translating(f"reading SSM parameter {name} in {self.region}", service="ssm"):
                return str(self._client.get_parameter(Name=name)["Parameter"]["Value"])
        except CloudError as error:
            if error.code == "ParameterNotFound":
                return None
            raise
