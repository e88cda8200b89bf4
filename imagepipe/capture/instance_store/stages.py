"""Make an instance-store image of the root: scrub, quiesce, bundle, upload and register.

The agent on the instance (`capture.agent`) does the work near the disk. All secrets stay here, except the bundle's
key and IV, which the agent gets after the image is prepared, so that they cannot be in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any, Literal

from imagepipe.bundle.cipher import Envelope, Secret, seal, unseal
from imagepipe.bundle.manifest import Label, Manifest, Recipients
from imagepipe.bundle.pack import EC2_LIMIT_BYTES, check_size
from imagepipe.capture import agent_loader
from imagepipe.capture.agent.frames import ProtocolError, Wire
from imagepipe.capture.instance_store.agent_messages import PreparedRoot, plain
from imagepipe.capture.instance_store.on_controller import bundle_here
from imagepipe.capture.instance_store.on_instance import bundle_on_instance
from imagepipe.capture.instance_store.s3_parts import S3Parts
from imagepipe.capture.scan.gate import Gate
from imagepipe.capture.scan.stages import Offline, gate_on_machine
from imagepipe.capture.scrub import script_text
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage
from imagepipe.cloud.registration import Registration
from imagepipe.cloud.s3 import S3
from imagepipe.cloud.tags import RunTags
from imagepipe.communicator.dialogue import Dialogue, open_dialogue
from imagepipe.communicator.output_hints import sudo_hint
from imagepipe.communicator.ssh import RECONNECT_SECONDS, Connection, Connections, Disconnected, Watch, public_key
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal import Claim, Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import BundleError, CommandFailed, HygieneError
from imagepipe.values import Bundle, BundlePlace, Image, ImageText, Reachable

BUNDLE_SECONDS = 4 * 3600
TRIES = 5
"""Number of agents: if a connection breaks or an agent is killed, another one continues."""
OUT_OF_MEMORY = 137
SILENT_SECONDS = 120.0
"""Longest silence of an agent, which sends a heartbeat every 15 s."""


@dataclass(frozen=True)
class BundleRoot(Stage[Bundle]):
    """Scrub and bundle the root and upload it to S3. The instance is useless afterwards."""

    ec2: Ec2 = field(repr=False, compare=False)
    connections: Connections = field(repr=False, compare=False)
    recipients: Recipients = field(repr=False, compare=False)
    machine: Ref[Reachable]
    source: Ref[SourceImage]
    place: Ref[BundlePlace]
    name: str
    account: str
    method: Literal["auto", "block", "tree"] = "auto"
    bundle_on: Literal["instance", "controller"] = "instance"
    exclude: tuple[str, ...] = ()
    size_gib: int | None = None
    is_local: bool = False
    """The image is for the local cloud, which can boot it without a boot loader."""
    gate: Gate = field(default_factory=Gate)
    offline: Offline | None = field(default=None, repr=False, compare=False)
    """Scans the unpacked bundle; if it cannot read it, the root is scanned on the machine."""

    def run(self, ctx: Context) -> Bundle:
        place, label = ctx[self.place], Label(self.name, self.account, ctx[self.source].architecture)
        made = Bundle(self.ec2.region, place.bucket, place.folder, self.name, label.architecture)
        claim = ctx.journal.claim_of_token(place.token)
        secret, is_known = self._secret(ctx.journal.folder / f"bundle-{place.token}.json")
        parts = S3Parts(self.ec2.s3, place.bucket, place.folder, may_be_there=is_known)
        if claim.id is not None:  # an earlier process of the run put the manifest
            manifest = parts.finished(f"{self.name}.manifest.xml")
        else:
            manifest = self._bundled(ctx, label, parts, secret)
            ctx.bind(claim, made.location)
        return replace(made, parts=parts.as_seen(manifest))

    def _secret(self, file: Path) -> tuple[Secret, bool]:
        """Return the bundle's key and IV, and whether an earlier process of the run already had them.

        They are stored in the run's folder, encrypted with the owner's public key, as in the manifest. A later process
        that uses the same key makes the same parts, so it need not upload again those that are already in S3.
        """
        owner = self.recipients.owner
        if file.exists():
            known = unseal(Envelope(**json.loads(file.read_text(encoding="ascii"))), owner.private_key)
            if known is not None:
                return known, True
        secret = Secret.new()
        file.write_text(json.dumps(asdict(seal(secret, owner.certificate.public_key))), encoding="ascii")
        return secret, False

    def _bundled(self, ctx: Context, label: Label, parts: S3Parts, secret: Secret) -> Manifest:
        """Bundle with up to TRIES agents; each makes the same parts as the one before it."""
        machine = ctx[self.machine]
        deadline = ctx.deadline(BUNDLE_SECONDS)
        for attempt in range(1, TRIES + 1):
            output: list[str] = []
            connection = self._connection(ctx, machine)
            watch = Watch(lambda _, text: output.append(text), deadline, ctx.cancel)  # noqa: B023 - used only in this iteration
            try:
                agent = open_dialogue(connection, agent_loader.command(), watch, silent_seconds=SILENT_SECONDS)
                with agent as dialogue, self._explained(dialogue, connection):
                    return self._talk(ctx, dialogue, label, parts, secret)
            except (ProtocolError, Disconnected) as error:
                ctx.cancel.check()
                if attempt == TRIES or deadline.is_past():
                    raise CommandFailed(
                        f"bundling the root of {machine.instance.id}: {error}{_last(output)}",
                        code=None,
                        hint="use --keep-on-failure to inspect the machine",
                    ) from error
                ctx.say(f"{error}; continuing with another agent")
        raise AssertionError("the last try returns or raises")

    def _talk(self, ctx: Context, dialogue: Dialogue, label: Label, parts: S3Parts, secret: Secret) -> Manifest:
        dialogue.write(agent_loader.program())
        wire = Wire(dialogue.read, dialogue.write)
        if printed := wire.await_handshake().strip():
            ctx.say(f"the machine's shell prints at each start: {plain(printed.decode(errors='replace'))}")
        wire.send(**self._wanted(ctx))
        with ctx.span("command"):
            root = PreparedRoot.receive(wire, ctx.say)
        if self._gate(ctx) is not None:
            if root.report is None:
                raise HygieneError(f"scanning {ctx[self.machine].instance.id}: the agent sent no report")
            self.gate.judge(ctx.say, root.report, where="scanned the machine's root for the bundle", record=ctx.finding)
        check_size(root.size, label.name)
        ctx.say(root.describe())
        with ctx.span("bytes"):
            bundle = bundle_on_instance if self.bundle_on == "instance" else bundle_here
            return bundle(ctx, wire, root, parts, label=label, secret=secret, recipients=self.recipients)

    def _gate(self, ctx: Context) -> Gate | None:
        return gate_on_machine(self.gate, self.offline, ctx[self.source])

    def _wanted(self, ctx: Context) -> dict[str, Any]:
        """Return the first order for the agent. Secrets to search for stay in the agent's memory."""
        endpoint = ctx[self.machine].endpoint
        gate = self._gate(ctx)
        scan = gate.request(builder_key=public_key(endpoint)).line().decode() if gate else ""
        return {
            "method": self.method,
            "user": endpoint.user,
            "scrub": script_text(),
            "key": public_key(endpoint),
            "exclude": self.exclude,
            "size": self.size_gib << 30 if self.size_gib else None,
            "may_be_bare": self.is_local or ctx[self.source].virtualization_type == "paravirtual",
            "limit": EC2_LIMIT_BYTES,
            "scan": scan,
        }

    @contextmanager
    def _explained(self, dialogue: Dialogue, connection: Connection) -> Iterator[None]:
        """Translate the exit code of an agent that ended without a message."""
        doing = f"bundling the root of {connection.endpoint.host}"
        try:
            yield
        except (ProtocolError, Disconnected) as error:
            if dialogue.is_silent:
                raise ProtocolError(f"the agent sent nothing for {SILENT_SECONDS:g} s") from error
            code = dialogue.code()
            output = plain("; ".join(dialogue.errors))
            if code == agent_loader.NO_PYTHON:
                raise CommandFailed(
                    f"{doing}: the machine has no Python 3",
                    code=code,
                    hint="the agent needs it: install python3 in a provisioning step",
                ) from error
            if code is not None and code != OUT_OF_MEMORY and "sudo" in output:
                hint = sudo_hint(output) or "the login user needs sudo without a password"
                raise CommandFailed(f"{doing}: {output}", code=code, hint=hint) from error
            if code is None and not connection.is_alive():
                raise Disconnected(f"the connection to {connection.endpoint.host} broke") from error
            ended = "killed, or stuck" if code is None else f"exit {code}"
            raise ProtocolError(f"the agent ended ({ended}): {error}") from error

    def _connection(self, ctx: Context, machine: Reachable) -> Connection:
        deadline = ctx.deadline(RECONNECT_SECONDS)
        return self.connections.reconnect(machine, deadline, ctx.cancel.sleep, self.ec2.instances.check_runs)

    def is_repeatable(self) -> bool:
        """Return True: logins stay possible from memory while the disk is scrubbed, so the next agent can continue."""
        return True

    def title(self) -> str:
        return "scrub the machine and bundle its root"

    def summary(self, output: Bundle) -> str:
        size = sum(part.size for part in output.parts)
        return f"{len(output.parts)} parts, {size / (1 << 20):.0f} MiB, in {output.bucket}/{output.folder}"


@dataclass(frozen=True)
class RegisterBundle(Stage[Image]):
    """Register the bundle and wait until the image is available in the launch region."""

    ec2: Ec2 = field(repr=False, compare=False)
    run_tags: RunTags = field(repr=False, compare=False)
    bundle: Ref[Bundle]
    source: Ref[SourceImage]
    text: Ref[Mapping[str, ImageText]]
    imds_v2: bool
    virtual_names: Mapping[str, str] = field(default_factory=dict)
    """Instance-store volumes by device that instances of the image get besides their root."""
    timeout_seconds: float = 3600.0
    """Time limit until the image is available."""

    def run(self, ctx: Context) -> Image:
        bundle, source, region = ctx[self.bundle], ctx[self.source], self.ec2.region
        text = ctx[self.text][region]
        check_parts(self.ec2.s3, bundle, ctx.cancel.check)

        def register(claim: Claim) -> str:
            return self.ec2.images.register_bundle(
                self.run_tags.image(claim.token, text),
                self._registration(source),
                bundle.location,
                [{"DeviceName": device, "VirtualName": virtual} for device, virtual in self._virtual(source).items()],
            )

        find = self.ec2.images.first_of_token
        claim = ctx.make("image", region, lifetime=Lifetime.PRODUCT, create=register, find=find)
        image = str(claim.id)
        with ctx.span("wait"):
            self.ec2.await_image(image, deadline=ctx.deadline(self.timeout_seconds), cancel=ctx.cancel)
        return Image(image, region, text.name, (), bundle=bundle.location)

    def _registration(self, source: SourceImage) -> Registration:
        return Registration(
            architecture=source.architecture,
            virtualization_type=source.virtualization_type,
            root_device_name=source.root_device_name,
            ena_support=source.ena_support,
            sriov_net_support=source.sriov_net_support,
            boot_mode=None,
            tpm_support=None,
            uefi_data=None,
            imds_support="v2.0" if self.imds_v2 else source.imds_support,
        )

    def _virtual(self, source: SourceImage) -> dict[str, str]:
        """Return instance-store volumes of the source image, overridden by the spec's."""
        own = {m["DeviceName"]: m["VirtualName"] for m in source.mappings if m.get("VirtualName")}
        return own | dict(self.virtual_names)

    def title(self) -> str:
        return "register the bundle as an image"

    def summary(self, output: Image) -> str:
        return f"{output.id} in {output.region}"


def check_parts(s3: S3, bundle: Bundle, check: Callable[[], None]) -> None:
    """Raise BundleError if a part in S3 is missing or differs from the sealed one, or if there is no manifest."""
    for part in bundle.parts:
        check()
        seen = s3.stored(bundle.bucket, f"{bundle.folder}/{part.filename}")
        if seen is None or (seen.size, seen.md5) != (part.size, part.md5):
            state = "is gone" if seen is None else f"has {seen.size} bytes and MD5 {seen.md5} now"
            raise BundleError(
                f"registering {bundle.location}: {part.filename} {state}; it was uploaded with {part.size} bytes and"
                f" MD5 {part.md5}",
                hint="somebody else wrote to the bucket in the meantime; nothing was registered",
            )
    if s3.stored(bundle.bucket, bundle.manifest_key) is None:
        raise BundleError(f"registering {bundle.location}: the manifest is gone")


def _last(output: list[str]) -> str:
    return f": {'; '.join(output[-5:])}" if output else ""
