"""THE RECIPE: from checked specs to the graph of stages that bakes them. Read it top to bottom."""

from __future__ import annotations

from dataclasses import replace

from imagepipe.capture.stop import TerminateInstance
from imagepipe.cloud.images import SourceImage
from imagepipe.engine.stage import Ref
from imagepipe.launch.access import Network
from imagepipe.publish.replace import ReplaceImage
from imagepipe.publish.test import PublishGate, UseImage
from imagepipe.values import Image, Instance
from imagepipe.wiring.build import Baked, ImageBuild
from imagepipe.wiring.capture import capture_for
from imagepipe.wiring.provision import add_steps, add_tests
from imagepipe.wiring.publication import announce, best_effort, finish, keep, prepare
from imagepipe.wiring.retention import retire_older
from imagepipe.wiring.scan import check_new_instance


def bake(build: ImageBuild) -> Baked:
    """Add the stages of one spec."""
    add = build.stages.add

    # The source image, the image's names, and everything that must hold before an instance is launched.
    source = add("source", build.find_source())
    fingerprint = add("inputs", build.record_inputs(source))
    wanted = add("name", build.name_images(source, fingerprint))
    text = add("names", build.check_names(wanted))
    capture = capture_for(build, source, text)
    checks = [text, *capture.checks, *build.check_publication(source)]

    # A machine: launched, reached and provisioned, step by step.
    key = add("key", build.key(source))
    network = add("network", build.network(source))
    instance = add("launch", build.launch(source, key, network, after=checks))
    machine = add("connect", build.connect(instance, key))
    machine = add_steps(build, "step", build.loaded.steps, machine, source)

    # Its image: captured, scanned and tested, while its instances are terminated.
    image = captured = capture.image(machine)
    terminated = [add("terminate", TerminateInstance(build.ec2, instance, captured))]
    if scan := capture.scan(captured, machine):
        image = add("hygiene", scan)
    tests: tuple[str, ...] = ()
    if build.loaded.tests:
        image, test_instance, tests = test(build, image, source, network)
        terminated.append(add("test-terminate", TerminateInstance(build.ec2, test_instance, image)))

    # Copied to all regions at once; shared and deprecated in each region as soon as its copy is there.
    images = {build.region: image}
    for region in build.copies:
        images[region] = build.add_in(region, "copy", capture.copy(image, region))
    ready = {region: prepare(build, region, copy) for region, copy in images.items()}

    # Kept when all required regions are ready. Only a kept image takes over a name, is protected, and is named by
    # launch templates and the SSM parameter: they never name an image that a failed build deletes.
    kept = keep(build, ready, terminated)
    final = dict(ready)
    for region, ec2 in build.everywhere.items():
        if build.replaces:
            replacing = ReplaceImage(ec2, build.run_tags, kept[region], wanted, build.audience)
            final[region] = build.add_in(region, "replace", replacing)
        final[region] = announce(build, region, final[region], after=kept[region])
    done = finish(build, final)
    retire_older(build, done)
    stages = frozenset(build.stages.names)
    may_fail = best_effort(build, image, final)
    return Baked(str(build.loaded.key), done, kept[build.region], tests, stages, may_fail, images, build.base)


def test(
    build: ImageBuild, image: Ref[Image], source: Ref[SourceImage], network: Ref[Network]
) -> tuple[Ref[Image], Ref[Instance], tuple[str, ...]]:
    """Boot a second instance from the new image and run the tests on it.

    Returns the image once every test has passed, the test instance, and the stages that are tests.
    """
    add = build.stages.add
    new = add("test-image", UseImage(build.ec2, image))
    key = add("test-key", build.key(source))
    launch = replace(build.launch(new, key, network, after=()), devices=(), user_data=None, encrypt_root=False)
    instance = add("test-launch", launch)
    booted = machine = add("test-boot", replace(build.connect(instance, key), of_new_image=True))
    if scan := check_new_instance(build, machine, source, new):
        machine = add("test-hygiene", scan)
    steps = add_tests(build, machine, source)
    passed = add("tested", PublishGate(image, machine, steps))
    return passed, instance, (booted.stage, *(step.stage for step in steps))
