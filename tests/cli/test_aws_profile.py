from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from imagepipe.cli.aws_profile import write_profile
from imagepipe.errors import UsageError

MINE = "# mine\n[default]\nregion = eu-west-1\n\n[profile work]\nrole_arn = arn:aws:iam::1:role/x\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "aws" / "config"


def _write(file: Path, name: str, endpoint: str) -> None:
    write_profile(name, {"endpoint_url": endpoint, "region": "us-east-1"}, {"AWS_CONFIG_FILE": str(file)})


def _endpoint(file: Path, section: str) -> str:
    config = configparser.ConfigParser()
    config.read(file)
    return config[section]["endpoint_url"]


def test_a_profile_is_added_and_all_else_stays(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(MINE)
    _write(file, "local", "http://127.0.0.1:1")
    assert file.read_text().startswith(MINE)
    assert _endpoint(file, "profile local") == "http://127.0.0.1:1"


def test_our_own_profile_is_replaced_where_it_is(file: Path) -> None:
    _write(file, "local", "http://127.0.0.1:1")
    with file.open("a") as config:
        config.write("\n" + MINE)
    _write(file, "local", "http://127.0.0.1:2")
    assert _endpoint(file, "profile local") == "http://127.0.0.1:2"
    assert file.read_text().count("[profile local]") == 1
    assert file.read_text().endswith(MINE)


def test_a_profile_that_somebody_else_wrote_is_not_replaced(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(MINE)
    for name in ("work", "default"):
        with pytest.raises(UsageError, match="which imagepipe did not write"):
            _write(file, name, "http://127.0.0.1:1")
    assert file.read_text() == MINE


def test_a_link_to_a_configuration_stays_a_link(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir()
    (tmp_path / "dotfiles").write_text(MINE)
    file.symlink_to(tmp_path / "dotfiles")
    _write(file, "local", "http://127.0.0.1:1")
    assert file.is_symlink()
    assert _endpoint(file, "profile local") == "http://127.0.0.1:1"


@pytest.mark.parametrize("name", ["", "a b", "x]\n[default", "ü"])
def test_a_name_that_would_break_the_file_is_refused(file: Path, name: str) -> None:
    with pytest.raises(UsageError, match="letters, digits"):
        _write(file, name, "http://127.0.0.1:1")
    assert not file.exists()


def test_a_file_that_cannot_be_written_is_named(file: Path) -> None:
    file.parent.write_text("a file where the folder would be")
    with pytest.raises(UsageError, match=r"writing profile local to .*config"):
        _write(file, "local", "http://127.0.0.1:1")
