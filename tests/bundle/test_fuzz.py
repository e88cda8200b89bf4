"""Whatever is put where a bundle's manifest should be: a manifest, or a BundleError that says what is wrong with it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imagepipe.bundle.manifest import read_manifest
from imagepipe.errors import BundleError
from tests.bundle.samples import CASES
from tests.fuzzing import BOUNDED, read_or_refused

SEEDS = [(CASES / name / "image.manifest.xml").read_bytes() for name in ("euca", "ec2-ami-tools")]
TAGS = [
    *["manifest", "version", "bundler", "machine_configuration", "architecture", "image", "name", "user", "type"],
    *["digest", "size", "bundled_size", "ec2_encrypted_key", "user_encrypted_key", "ec2_encrypted_iv", "parts"],
    *[
        "user_encrypted_iv",
        "part",
        "filename",
        "signature",
        "block_device_mapping",
        "mapping",
        "virtual",
        "device",
        "x",
    ],
]
XML: st.SearchStrategy[str] = st.recursive(
    st.text(alphabet="ab01-./&;<>\"' \n\x00é", max_size=10) | st.sampled_from(["0", "-1", "9" * 30, "&lt;", "SHA1"]),
    lambda inner: st.builds(
        lambda tag, attribute, content: f"<{tag}{attribute}>{''.join(content)}</{tag}>",
        st.sampled_from(TAGS),
        st.sampled_from(["", ' algorithm="SHA1"', ' index="0"', ' count="1"', ' count="9999999999"', ' a="1" a="1"']),
        st.lists(inner, max_size=4),
    ),
    max_leaves=25,
)


def _look(document: bytes) -> None:
    manifest = read_or_refused(lambda: read_manifest(document), BundleError, "")
    assert manifest is None or (manifest.parts and manifest.filename)


@BOUNDED
@given(raw=st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_refused(raw: bytes) -> None:
    _look(raw)


@BOUNDED
@given(text=XML)
def test_any_elements_are_a_manifest_or_refused(text: str) -> None:
    _look(f'<?xml version="1.0"?><manifest>{text}</manifest>'.encode())


@BOUNDED
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_a_manifest_with_a_slip_of_the_hand_is_read_or_refused(seed: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(seed) - 1))
    other = data.draw(st.integers(0, len(seed) - 1))
    low, high = min(at, other), max(at, other)
    match data.draw(st.sampled_from(["change", "cut", "lose", "double", "insert", "swap"])):
        case "change":
            seed = seed[:at] + bytes([data.draw(st.integers(0, 255))]) + seed[at + 1 :]
        case "cut":
            seed = seed[:at]
        case "lose":
            seed = seed[:low] + seed[high:]
        case "double":
            seed = seed[:high] + seed[low:high] + seed[high:]
        case "insert":
            seed = seed[:at] + data.draw(XML).encode() + seed[at:]
        case "swap":
            text = seed.decode()
            first, second = data.draw(st.sampled_from(TAGS)), data.draw(st.sampled_from(TAGS))
            seed = text.replace(f"<{first}>", f"<{second}>").replace(f"</{first}>", f"</{second}>").encode()
    _look(seed)
