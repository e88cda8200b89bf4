"""What kinds of user data cloud-init knows, by their first line (cloud-init's documentation, "User data formats")."""

from __future__ import annotations

import re

BEGINNINGS = {
    "#!": "x-shellscript",
    "#cloud-config-archive": "cloud-config-archive",
    "#cloud-config": "cloud-config",
    "#cloud-boothook": "cloud-boothook",
    "#include-once": "x-include-once-url",
    "#include": "x-include-url",
    "#part-handler": "part-handler",
    "## template: jinja": "jinja2",
}
"""The subtype of `text/` that each is as a MIME part; longer beginnings before those that begin alike."""
_MIME = re.compile(r"(?i)\A(content-type|mime-version):")


def is_mime(text: str) -> bool:
    """Whether user data is a MIME message itself."""
    return _MIME.match(text.lstrip()) is not None


def kind_of(text: str) -> str | None:
    """The subtype of a text that is no MIME message; None where cloud-init would not know it."""
    return next((kind for word, kind in BEGINNINGS.items() if text.lstrip().startswith(word)), None)


def user_data_problem(text: str) -> str | None:
    """Why cloud-init would not know what a text is; None if it would."""
    if is_mime(text) or kind_of(text):
        return None
    return "cloud-init knows user data by its first line: #cloud-config, #!/bin/sh, #include, …"
