"""Names of images and queues, for specs and options; this module loads nothing else of imagepipe."""

from __future__ import annotations

import re

IMAGE_ID = re.compile(r"ami-([0-9a-f]{8}|[0-9a-f]{17})")
"""Id of an image. EC2 made ids of 8 digits until 2018."""
DEFAULT_QUEUE = "imagepipe"
"""Task queue of the specs that name none, for builds on many machines."""
QUEUE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
"""Pattern of the names of queues."""
