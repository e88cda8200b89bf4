"""Specs for policies, of all that a policy depends on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from imagepipe.policy.context import PolicyContext
from imagepipe.spec.load import SAMPLE_BUILD, load, refuse
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given

PLAIN = """\
imagepipe: 1
name: plain
source: {ami: ami-12345678}
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: plain}
"""
FULL = """\
imagepipe: 1
name: full
source: {ami: {name: "x*", owners: [self, amazon, "136693071363"]}}
launch:
  region: us-east-1
  instance_types: [t3.small, t3a.small]
  subnets: [subnet-12345678, {tags: {tier: "build-*"}}]
  iam_instance_profile: reader
  ssh: {user: admin}
  block_devices: [{device: /dev/sdf, size_gib: 1, snapshot: snap-12345678, kms_key: alias/data, tags: {use: data}}]
provision: [{shell: "true"}]
test: [{shell: "true"}]
output:
  name: full
  on_name_taken: replace
  encrypt: {kms_key: 11111111-2222-3333-4444-555555555555, per_region: {us-west-2: {kms_key: alias/images}}}
  block_devices: [{device: /dev/sdf, tags: {use: data}}, {device: /dev/sdg, snapshot: snap-87654321}]
publish:
  regions: [us-west-2]
  share: {accounts: ["123456789012"]}
  ssm_parameter: "/images/{{ region }}/full"
  launch_templates: [{name: web}, {id: lt-12345678}]
  deprecate_after: 90d
retention: {newest: 3}
"""
OWN_ACCESS = """\
imagepipe: 1
name: own
source: {ami: {ssm: /aws/service/debian/release/12/latest/amd64}}
launch:
  region: us-east-1
  security_groups: [sg-12345678]
  ssh: {user: admin, key_pair: ours, private_key: key}
output: {name: own, imds_support: source, boot_mode: legacy-bios, encrypt: true, tags: {team: web}}
publish: {deregistration_protection: {cooldown: true}}
"""
WITHDRAWN = """\
imagepipe: 1
name: withdrawn
source: {ami: ami-12345678}
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: withdrawn}
publish: {deprecate_after: never, deregistration_protection: false}
"""
BUNDLE = """\
imagepipe: 1
name: bundle
source: {ami: ami-12345678}
launch: {region: us-east-1, instance_types: [m3.medium], ssh: {user: admin}}
test: [{shell: "true"}]
output:
  type: instance-store
  name: bundle
  bucket: east
  prefix: "p/{{ build.id }}/{{ region }}/{{ source.id }}"
  account: "123456789012"
  on_name_taken: replace
  per_region: {us-west-2: {bucket: west}}
publish: {regions: [us-west-2], share: {public: true}}
"""
LAYER = PLAIN.replace("plain", "layer").replace("{ami: ami-12345678}", "{image: plain}") + "---\n" + PLAIN
SPECS: Mapping[str, str] = {
    "layer": LAYER,
    "plain": PLAIN,
    "full": FULL,
    "own": OWN_ACCESS,
    "bundle": BUNDLE,
    "withdrawn": WITHDRAWN,
}


def loaded(folder: Path, text: str) -> LoadedSpec:
    file = folder / "spec.yaml"
    file.write_text(text)
    (folder / "key").touch()
    specs = load([file], Given(), build=SAMPLE_BUILD)
    refuse(specs)
    return specs[0]


def context_of(folder: Path, text: str) -> PolicyContext:
    return PolicyContext(loaded(folder, text).checked(), "us-east-1")
