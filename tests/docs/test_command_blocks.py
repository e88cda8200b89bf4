"""Every block of commands in the docs is run, or says why it is not; no command line names an option that is not there.

Pages that need a cloud are run in tests/machine/test_docs_blocks.py.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagepipe.spec.load import load
from imagepipe.spec.variables import Given
from tests.docs.blocks import PAGES, ROOT, Block, blocks_of, invocations, named_inline, problem_of, remarks_of
from tests.docs.page_runs import ELSEWHERE, LOCAL_CLOUD, OFFLINE, SPEC, name_of, run_page, script_of

SECONDS = 120


def _all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page)]


def _problems(page: Path, *, is_run: bool) -> list[str]:
    """Blocks that are neither run nor say why not, and remarks that no block has or that say nothing."""
    blocks = blocks_of(page)
    found = [f"{b.place}: not run, without a reason" for b in blocks if b.not_run is not None and len(b.not_run) < 8]
    for block in blocks:
        if block.is_commands and block.not_run is None and block.file is None and not is_run:
            found.append(f"{block.place}: no test runs this page; say why before the block: <!-- not run: … -->")
        if block.language == "" and any(line.startswith(("imagepipe ", "$ ")) for line in block.text.splitlines()):
            found.append(f"{block.place}: commands in a block without a language")
    remarked = sum(b.not_run is not None or b.file is not None for b in blocks)
    if remarked != remarks_of(page):
        found.append(f"{page.name}: {remarks_of(page)} comments, but {remarked} are right before a block")
    return found


def _wrong_lines(page: Path) -> list[str]:
    """Command lines of a page that imagepipe would refuse, in blocks of any kind and in the text."""
    found = []
    for block in blocks_of(page):
        if block.language not in ("python", "json"):
            text = block.script if block.is_commands else block.text
            found += [f"{block.place}: {p}" for words in invocations(text) if (p := problem_of(words))]
    found += [f"{page.name}: {p}: {words}" for words in named_inline(page) if (p := problem_of(words, is_whole=False))]
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_of_commands_is_run_or_says_why_it_is_not(page: Path) -> None:
    assert _problems(page, is_run=name_of(page) in {*OFFLINE, *LOCAL_CLOUD, *ELSEWHERE}) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_imagepipe_has_every_command_and_option_that_a_page_names(page: Path) -> None:
    assert _wrong_lines(page) == []


def test_there_are_such_blocks_and_command_lines() -> None:
    blocks = [block for block in _all_blocks() if block.is_commands]
    assert len(blocks) > 90
    assert sum(block.not_run is None for block in blocks) > 40
    assert sum(len(list(invocations(block.script))) for block in blocks) > 130
    assert sum(len(list(named_inline(page))) for page in PAGES) > 80


def test_every_page_that_is_run_has_blocks_and_the_test_of_its_own_names_it() -> None:
    for name in (*OFFLINE, *LOCAL_CLOUD, *ELSEWHERE):
        assert any(b.is_commands and b.not_run is None for b in blocks_of(ROOT / name)), name
    for name, test in ELSEWHERE.items():
        assert name in (ROOT / test).read_text(encoding="utf-8")


WRONG = """\
# A page

    imagepipe build web.yaml --lokal

<!-- not run: no -->

    imagepipe bild web.yaml

<!-- not run: needs an AWS account -->

This text is between the comment and its block.

    imagepipe build web.yaml --wait

```
$ imagepipe runs --format xml
```

Then `imagepipe clean --everything` deletes it.

```yaml
script:
  - imagepipe publish web.yaml --regions us-east-1
```

```sh
image=$(imagepipe build --format) && echo "$image"
imagepipe build web.yaml \\
  --format json >images.json   # fine
imagepipe schema spec project
imagepipe local
```
"""


def test_a_wrong_page_is_refused_at_each_of_its_mistakes(tmp_path: Path) -> None:
    page = tmp_path / "wrong.md"
    page.write_text(WRONG, encoding="utf-8")
    assert [each.partition(": ")[2][:24] for each in _problems(page, is_run=False)] == [
        "not run, without a reason"[:24],
        *["no test runs this page; say"[:24]] * 2,
        "commands in a block without"[:24],
        "no test runs this page; say"[:24],
        "2 comments, but 1 are right"[:24],
    ]
    assert len(_problems(page, is_run=True)) == 3
    lines = _wrong_lines(page)
    for mistake in (
        "'--lokal'", "'bild'", "'--wait'", "'xml'", "'--everything'", "'--regions'", "'--format' requires",
        "extra arguments (project)", "Missing command",
    ):  # fmt: skip
        assert sum(mistake in line for line in lines) == 1, (mistake, lines)
    assert len(lines) == 9


def test_comments_before_blocks_are_read_and_output_is_no_command(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- file: a/b.yaml -->\n\n```yaml\na: 1\n```\n\n- in a list:\n\n  <!-- not run: needs a moon -->\n\n"
        "      imagepipe runs\n\n```console\n$ echo one \\\n  two\none two\n```\n"
    )
    saved, left, shown = blocks_of(page)
    assert (saved.file, left.not_run, left.script) == ("a/b.yaml", "needs a moon", "imagepipe runs\n")
    assert shown.script == "echo one \\\n  two\n"
    assert "cat >a/b.yaml" in script_of([saved, left, shown])
    assert "imagepipe" not in script_of([saved, left, shown])


def _whole_specs() -> list[Block]:
    found = []
    for block in _all_blocks():
        if block.language == "yaml" and "imagepipe: 1" in block.text.splitlines():
            value = yaml.safe_load(block.text)
            if isinstance(value, dict) and {"name", "source", "output"} <= value.keys():
                found.append(block)
    return found


def _named_files(value: Any) -> Iterator[str]:
    """Yield the paths that a spec names: of files, folders, templates and scripts."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("src", "script") and isinstance(inner, str):
                yield inner
            yield from _named_files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_files(inner)


@pytest.mark.parametrize("block", _whole_specs(), ids=lambda block: block.place)
def test_a_whole_spec_of_a_page_is_valid_once_its_files_exist(block: Block, tmp_path: Path) -> None:
    spec = tmp_path / "project/specs/spec.yaml"
    spec.parent.mkdir(parents=True)
    spec.write_text(block.text, encoding="utf-8")
    for name in _named_files(yaml.safe_load(block.text)):
        place = spec.parent / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.write_text("", encoding="utf-8")
    loaded = load([spec], Given())
    assert loaded
    assert [problem.text() for each in loaded for problem in each.problems] == []


def test_there_are_whole_specs() -> None:
    assert len(_whole_specs()) >= 8


def _prepare(page: str, folder: Path) -> None:
    """Put the files into the folder that the page takes for granted."""
    if page == "docs/how-to/come-from-packer.md":
        [template] = [block.text for block in blocks_of(ROOT / page) if block.language == "json"]
        (folder / "web.json").write_text(template)
        (folder / "prod.json").write_text('{"greeting": "hi"}')
        (folder / "web.pkr.hcl").write_text(
            textwrap.dedent("""\
            source "amazon-ebs" "web" {
              region        = "us-east-1"
              source_ami    = "ami-0123456789abcdef0"
              instance_type = "t3.small"
              ssh_username  = "admin"
              ami_name      = "web-1"
            }
            build {
              sources = ["source.amazon-ebs.web"]
            }
            """)
        )
        (folder / "app").mkdir()
    if page == "docs/how-to/editors.md":
        (folder / "specs").mkdir()
        (folder / "specs/web-server.yaml").write_text(SPEC)
    if page == "docs/how-to/instance-store.md":
        for name in ("specs", "provisioners"):
            shutil.copytree(ROOT / name, folder / name)


@pytest.mark.parametrize("page", OFFLINE)
def test_the_commands_of_a_page_that_needs_no_cloud_run_in_order(page: str, tmp_path: Path) -> None:
    _prepare(page, tmp_path)
    output = run_page(ROOT / page, tmp_path, {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}, seconds=SECONDS)
    for text in OFFLINE[page]:
        assert text in output
