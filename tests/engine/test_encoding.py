"""Outputs of stages survive a process: by JSON, and back to equal values of the same types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from imagepipe.capture.instance_store.stages import BundleRoot
from imagepipe.cloud.images import SourceImage
from imagepipe.engine.encoding import decode, encode, output_type
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import ImagepipeError
from imagepipe.launch.access import Key, Network
from imagepipe.launch.source import CheckNames
from imagepipe.provision.reboot import RebootMachine
from imagepipe.values import (
    Bundle,
    BundlePart,
    BundlePlace,
    Endpoint,
    Image,
    ImageText,
    Instance,
    Reachable,
    Sealed,
    Stopped,
)

INSTANCE = Instance("i-1", "us-east-1", "t3.small", "/dev/xvda", "ssh-ed25519 AAAA", spot=True)
ENDPOINT = Endpoint("1.2.3.4", 22, "admin", None, "/k", via=Endpoint("5.6.7.8", 22, "x", "ssh-rsa AA", "/b"))
SOURCE = SourceImage(
    "ami-1", "n", "1", "x86_64", "hvm", "/dev/xvda", "ebs", ({"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8}},),
    ena_support=True, product_codes=("a", "b"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (type(None), None),
        (Mapping[str, str], {"us-east-1": "name"}),
        (Key, Key("k", "/path")),
        (Network, Network(("sg-1",), (None, "subnet-1"))),
        (SourceImage, SOURCE),
        (Instance, INSTANCE),
        (Reachable, Reachable(INSTANCE, ENDPOINT)),
        (Sealed, Sealed(INSTANCE)),
        (Stopped, Stopped(INSTANCE)),
        (BundlePlace, BundlePlace("b", "f", "t")),
        (Bundle, Bundle("us-east-1", "b", "f", "n", "x86_64", (BundlePart("n.part.00", 5, "aa"),))),
        (Image, Image("ami-1", "us-east-1", "n", ("snap-1",))),
        (tuple[Image, ...], (Image("ami-1", "us-east-1", "n", ()), Image("ami-2", "us-west-2", "n", (), "b/f/n"))),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_every_output_of_a_stage_comes_back_as_it_was(kind: Any, value: Any) -> None:
    assert decode(kind, json.loads(json.dumps(encode(value)))) == value


@pytest.mark.parametrize(
    ("stage", "kind"),
    [(CheckNames, Mapping[str, ImageText]), (BundleRoot, Bundle), (RebootMachine, Reachable)],
)
def test_what_a_stage_gives_is_read_from_its_class(stage: type[Stage[Any]], kind: Any) -> None:
    assert output_type(object.__new__(stage)) == kind


@pytest.mark.parametrize("json", [{"id": 7}, {"id": "i"}, [], None, "x"])
def test_what_is_no_such_output_is_an_error_in_our_words(json: Any) -> None:
    with pytest.raises(ImagepipeError, match="an output in the journal is no"):
        decode(Instance, json)


def test_a_value_that_could_not_come_back_is_not_written() -> None:
    with pytest.raises(TypeError, match="cannot be written to the journal"):
        encode({"handle": object()})


def test_a_stage_must_say_what_it_gives() -> None:
    @dataclass(frozen=True)
    class Nothing(Stage):  # type: ignore[type-arg]
        needs: tuple[Ref[Any], ...] = ()

        def run(self, ctx: Context) -> None:
            return None

    with pytest.raises(TypeError, match="Nothing does not declare the type of its output"):
        output_type(Nothing())
