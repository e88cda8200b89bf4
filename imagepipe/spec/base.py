"""The base of all models of the language."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """Base of all parts of a spec: unknown keys are errors, and values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class CommonOptions(Model):
    """Options that every step and every kind of test has."""

    name: str | None = Field(None, description="Name in logs and reports.", min_length=1, max_length=100)
    when: str | None = Field(None, description="Jinja expression, without braces; it runs only if this is true.")
    sudo: bool | None = Field(None, description="Run as root; `launch.ssh.sudo` if absent.")


def only_key(value: Any, kinds: dict[str, str]) -> str | None:
    """Return the tag of the one key of a mapping that is among `kinds`; None if it has several or none of them."""
    if isinstance(value, dict):
        found = [tag for key, tag in kinds.items() if key in value]
        return found[0] if len(found) == 1 else None
    return None
