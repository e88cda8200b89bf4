"""The benchmarks, which no other test runs: a name that moved breaks them silently."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


def test_every_benchmark_finds_the_names_that_it_imports() -> None:
    assert "instant" in MODULES
    code = f"import sys; sys.path[:0] = ['benchmarks', '.']; import {', '.join(MODULES)}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _run_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_run", ROOT / "benchmarks" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_run"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_figure_and_its_goal_are_read_from_a_row() -> None:
    rows = [
        "| what | measured | target |",
        "| --- | --- | --- |",
        "| one spec | 0.215 s | 0.216 s | 1.00 | at most 1.75 |",
        "| packer | 60.5 s | 0.33 s | **0.09** (at most 0.25) |",
        "| one build | 0.54 s | 2.57 (at most 1.0), CPU 1.10 (at most 1.25) |",
        "| dry run | 2006 | 1921 | 4.1 s | 323 | for comparison |",
        "| pack | 3.69 s | 38.63 s | 10.5 times as fast | at least 10.0 |",
        "within its target",
    ]
    found = list(_run_module().figures_of("x", rows))
    assert [(each.what, each.value, each.goal, each.is_upper) for each in found] == [
        ("one spec", 1.0, 1.75, True),
        ("packer", 0.09, 0.25, True),
        ("one build", 2.57, 1.0, True),
        ("one build", 1.10, 1.25, True),
        ("pack", 10.5, 10.0, False),
    ]
    assert [each.share <= 1 for each in found] == [True, True, False, True, True]


def test_every_benchmark_is_among_those_that_make_bench_runs() -> None:
    shared = {"run", "endpoint"}
    assert set(_run_module().BENCHMARKS) == set(MODULES) - shared
