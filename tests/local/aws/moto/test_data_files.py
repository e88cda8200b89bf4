"""botocore's data files are read once while moto is imported."""

from __future__ import annotations

import pytest
from botocore.loaders import JSONFileLoader, Loader

from imagepipe.local.aws.moto.data_files import read_once


def test_loaders_share_a_file_inside_the_block_and_only_there() -> None:
    with read_once():
        shared = Loader().load_data("endpoints")
        assert Loader().load_data("endpoints") is shared
    with read_once():
        assert Loader().load_data("endpoints") is not shared
    assert Loader().load_data("endpoints") is not Loader().load_data("endpoints")


def test_after_a_failed_import_botocore_reads_its_files_itself() -> None:
    with pytest.raises(ImportError), read_once():
        raise ImportError
    assert Loader.FILE_LOADER_CLASS is JSONFileLoader
