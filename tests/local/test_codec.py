"""A record is read as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from imagepipe.local import codec
from imagepipe.local.aws.state.records import Capture, DiskSpec, Image, Record, Rule, SecurityGroup, Token

texts = st.text(max_size=20)
moments = st.datetimes(timezones=st.just(UTC))
disks = st.builds(
    DiskSpec, device=texts, snapshot_id=st.none() | texts, size_gib=st.integers(0), encrypted=st.booleans()
)
rules = st.builds(
    Rule,
    id=texts,
    protocol=texts,
    from_port=st.integers(-1, 65535),
    to_port=st.integers(-1, 65535),
    tags=st.dictionaries(texts, texts),
)
records: st.SearchStrategy[Record] = st.one_of(
    st.builds(
        Image,
        tags=st.dictionaries(texts, texts),
        created=moments,
        mappings=st.lists(disks).map(tuple),
        users=st.lists(texts).map(tuple),
        deprecation_time=st.none() | moments,
        capture=st.none() | st.builds(Capture, instance_id=texts, reboots=st.booleans()),
        launches=st.lists(moments).map(tuple),
    ),
    st.builds(SecurityGroup, ingress=st.lists(rules).map(tuple), egress=st.lists(rules).map(tuple)),
    st.builds(Token, made=st.lists(texts).map(tuple), used=moments),
)


@given(records)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    assert codec.loads(type(record), codec.dumps(record)) == record


def test_an_older_record_takes_the_defaults_of_missing_fields() -> None:
    read = codec.loads(Rule, '{"id": "sgr-1", "protocol": "tcp", "from_port": 22, "to_port": 22, "gone": 1}')
    assert read == Rule(id="sgr-1", protocol="tcp", from_port=22, to_port=22)


@dataclass(frozen=True, slots=True)
class Disk:
    path: Path
    content: bytes


def test_paths_and_bytes_are_read_as_they_were_written() -> None:
    disk = Disk(Path("/a folder/disk"), b"\x00\xff")
    assert codec.loads(Disk, codec.dumps(disk)) == disk
