"""`make bench-smoke`: the quickest benchmark runs, and leaves a report. Figures mean nothing on a busy machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.machine

ROOT = Path(__file__).resolve().parents[2]


def test_the_quickest_benchmark_runs_and_leaves_a_report(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/run.py", "--smoke", "--out", str(tmp_path), "validate"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert "report: " in done.stdout, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert [result["name"] for result in results] == ["validate"]
    assert results[0]["figures"], "validate has a goal"
    report = (tmp_path / "report.md").read_text()
    assert "Python 3" in report
    assert "## validate" in report
