"""SSM parameters of one region, in which AWS and others publish image ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from imagepipe.cloud import tags as tagging
from imagepipe.cloud.errors import translating
from imagepipe.cloud.session import Session
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError

IMAGE_TYPE = "aws:ec2:image"
"""Data type of parameters whose values are image ids, which Systems Manager checks."""
MISSING = ("ParameterNotFound", "ParameterVersionNotFound")


@dataclass(frozen=True, slots=True)
class StoredParameter:
    """A parameter as Systems Manager has it now."""

    name: str
    value: str
    version: int
    type: str
    """`String`, `StringList` or `SecureString`."""
    data_type: str
    tags: Mapping[str, str] = field(default_factory=dict)


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
        found = self._get(name)
        return None if found is None else str(found["Value"])

    def stored(self, name: str) -> StoredParameter | None:
        """Return a parameter with its tags; None if it does not exist. A secret value is not decrypted."""
        found = self._get(name)
        if found is None:
            return None
        try:
            with translating(f"reading the tags of SSM parameter {name} in {self.region}", service="ssm"):
                answer = self._client.list_tags_for_resource(ResourceType="Parameter", ResourceId=name)
        except CloudError as error:
            if error.code == "InvalidResourceId":  # deleted since
                return None
            raise
        return StoredParameter(
            name,
            str(found["Value"]),
            int(found["Version"]),
            str(found["Type"]),
            str(found.get("DataType", "text")),
            tagging.mapping(answer["TagList"]),
        )

    def _get(self, name: str) -> Mapping[str, Any] | None:
        try:
            with translating(f"reading SSM parameter {name} in {self.region}", service="ssm"):
                found: Mapping[str, Any] = self._client.get_parameter(Name=name)["Parameter"]
        except CloudError as error:
            if error.code in MISSING:
                return None
            raise
        return found

    def create_image_parameter(self, name: str, image: str, tags: Mapping[str, str]) -> None:
        """Create a parameter for an image's id. Raises CloudError, `ParameterAlreadyExists` if it exists.

        Systems Manager checks the image after its answer: the parameter may appear later, or never.
        """
        with translating(f"creating SSM parameter {name} in {self.region}", service="ssm"):
            self._client.put_parameter(
                Name=name, Value=image, Type="String", DataType=IMAGE_TYPE, Tags=tagging.pairs(tags)
            )

    def overwrite_image_parameter(self, name: str, image: str) -> None:
        """Store another image's id in a parameter as a new version. It may change later, or never."""
        with translating(f"writing SSM parameter {name} in {self.region}", service="ssm"):
            self._client.put_parameter(Name=name, Value=image, Type="String", DataType=IMAGE_TYPE, Overwrite=True)
