"""Translate `publish:` into the attributes of an image in one region, in the order in which they are set.

The recipe and the search for differences use the same lists, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator

from imagepipe import render
from imagepipe.cloud.ec2 import Ec2
from imagepipe.engine.stage import Ref
from imagepipe.late import Late, Text
from imagepipe.publish.attribute import ImageAttribute
from imagepipe.publish.lifetime import DeprecateImage, ProtectImage, RemoveDeprecation, RemoveProtection
from imagepipe.publish.parameter import WriteParameter
from imagepipe.publish.share import RevokeGrants, ShareImage
from imagepipe.publish.tag import TagImage
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import DeregistrationProtection, Spec
from imagepipe.spec.scalars import NEVER
from imagepipe.values import Image
from imagepipe.wiring.build import audience_of, image_parameter, template_targets

Named = tuple[str, ImageAttribute]
"""A stage and its name, without the region."""


def shares(spec: Spec, ec2: Ec2, image: Ref[Image]) -> Iterator[Named]:
    """Yield the launch permissions."""
    if audience := audience_of(spec):
        yield "share", ShareImage(ec2, image, audience)


def deprecations(spec: Spec, ec2: Ec2, image: Ref[Image]) -> Iterator[Named]:
    """Yield the time of the deprecation."""
    if spec.publish.deprecate_after not in (None, NEVER):
        yield "deprecate", DeprecateImage(ec2, image, spec.publish.deprecate_after)


def announcements(loaded: LoadedSpec, ec2: Ec2, image: Ref[Image], *, home: str) -> Iterator[Named]:
    """Yield the attributes that only a kept image gets, the parameter last. `home` is the launch region."""
    spec = loaded.checked()
    if isinstance(protection := spec.publish.deregistration_protection, DeregistrationProtection):
        yield "protect", ProtectImage(ec2, image, protection.cooldown)
    for number, target in enumerate(template_targets(spec, ec2.region, home), start=1):
        from imagepipe.publish.launch_template import UpdateTemplate

        yield f"template-{number}", UpdateTemplate(ec2, image, target)
    if (parameter := image_parameter(loaded)) is not None:
        yield "parameter", WriteParameter(ec2, image, parameter)


def additions(loaded: LoadedSpec, ec2: Ec2, image: Ref[Image], *, home: str) -> Iterator[Named]:
    """Yield all attributes that an image which exists already may lack."""
    spec = loaded.checked()
    if tags := lasting_tags(loaded):
        yield "tag", TagImage(ec2, image, tags)
    yield from shares(spec, ec2, image)
    yield from deprecations(spec, ec2, image)
    yield from announcements(loaded, ec2, image, home=home)


def withdrawals(loaded: LoadedSpec, ec2: Ec2, image: Ref[Image]) -> Iterator[Named]:
    """Yield the stages that take away what the spec does not grant, or no longer wants; a build has none of them."""
    spec = loaded.checked()
    yield "revoke", RevokeGrants(ec2, image, audience_of(spec))
    if spec.publish.deprecate_after == NEVER:
        yield "undeprecate", RemoveDeprecation(ec2, image)
    if spec.publish.deregistration_protection is False:
        yield "unprotect", RemoveProtection(ec2, image)


def lasting_tags(loaded: LoadedSpec) -> dict[str, Text]:
    """Return the spec's tags whose values do not depend on a build or a source image: those of an old image are right.

    A value that depends on the build differs from that of the reference, in which `build` has sample values.
    """
    tags = loaded.checked().output.tags
    reference = loaded.reference.checked().output.tags if loaded.reference else tags
    return {key: text for key, text in tags.items() if not _needs_source(text) and text == reference.get(key)}


def _needs_source(text: Text) -> bool:
    return isinstance(text, Late) and any(name.partition(".")[0] == "source" for name in render.names_used(text.text))
