"""Keep the list of an image's inputs with the run, and make its fingerprint, which becomes a tag."""

from __future__ import annotations

from dataclasses import field

from imagepipe.cloud.images import SourceImage
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.inputs.manifest import InputManifest, document_of


@dataclass(frozen=True)
class RecordInputs(Stage[str]):
    """Complete the list of inputs with the id of the source image, and write it.

    Output: the fingerprint; empty if the inputs are not known.
    """

    source: Ref[SourceImage]
    spec: str
    """Key of the spec."""
    manifest: InputManifest | None = field(repr=False, compare=False)
    """The inputs except the source image; None if the spec cannot be loaded without its secrets."""

    def run(self, ctx: Context) -> str:
        if self.manifest is None:
            ctx.say("a secret decides how this spec is read, so its image has no fingerprint and is never reused")
            return ""
        complete = self.manifest.with_source(ctx[self.source].id)
        ctx.journal.put(document_of(self.spec), complete.to_bytes())
        return complete.fingerprint()

    def title(self) -> str:
        return "list the inputs"

    def summary(self, output: str) -> str:
        return f"fingerprint {output}" if output else ""
