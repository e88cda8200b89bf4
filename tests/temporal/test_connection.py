from __future__ import annotations

import pytest

from imagepipe.errors import UsageError
from imagepipe.temporal.connection import Server


@pytest.mark.parametrize(
    ("url", "address", "namespace"),
    [
        ("temporal://localhost:7233/images", "localhost:7233", "images"),
        ("temporal://localhost:7233", "localhost:7233", "default"),
        ("temporal://temporal.internal/", "temporal.internal:7233", "default"),
        ("temporal://[::1]:7233/images/", "[::1]:7233", "images"),
    ],
)
def test_an_engine_is_a_host_a_port_and_a_namespace(url: str, address: str, namespace: str) -> None:
    assert Server.parse(url) == Server(address, namespace)


@pytest.mark.parametrize(
    "url", ["localhost:7233", "http://localhost:7233", "temporal://", "temporal://a b", "temporal://h:0"]
)
def test_anything_else_is_refused_with_the_way_to_write_it(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        Server.parse(url)
    assert "HOST:PORT" in str(refused.value.hint)


def test_an_address_is_written_as_it_is_read() -> None:
    assert str(Server.parse("temporal://localhost:7233/images")) == "temporal://localhost:7233/images"
