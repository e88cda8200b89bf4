"""The benchmarks, which no other test runs: a name that moved breaks them silently."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


def test_every_benchmark_finds_the_names_that_it_imports() -> None:
    assert "instant" in MODULES
    code = f"import sys; sys.path[:0] = ['benchmarks', '.']; import {', '.join(MODULES)}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
