"""Faults that only a machine with an SSH can meet; and what a build makes of them."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.machine
