"""Names and keys of the specs of a run: those that two specs would fight over, and keys of another region."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from imagepipe.errors import SpecError, UsageError
from imagepipe.spec.check import key_region_findings
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import Spec
from imagepipe.wiring.build import image_parameter, template_targets


def check_distinct_names(specs: Sequence[LoadedSpec], region: Callable[[Spec], str]) -> None:
    """Raise UsageError if two specs of a run want the same image name in the same region: both would find it free.

    A name that needs the source image is known only during the run; RegisterImage then refuses the second image.
    """
    taken: dict[tuple[str, str], str] = {}
    for loaded in specs:
        spec, key = loaded.checked(), str(loaded.key)
        name = spec.output.name
        for where in spec.publish.everywhere(region(spec)):
            if isinstance(name, str) and (other := taken.setdefault((where, name), key)) != key:
                own = "the axes of the matrix" if loaded.axes else "{{ spec.name }}"
                raise UsageError(
                    f"specs '{other}' and '{key}' both name their image '{name}' in {where}",
                    hint=f"put {own} into output.name, or build one after the other",
                )
    _check_distinct_targets(specs, region)


def check_key_regions(specs: Sequence[LoadedSpec], region: Callable[[Spec], str]) -> None:
    """Raise SpecError for KMS keys outside the launch region, which --region or the session may have set."""
    problems = [
        loaded.problem(path, message)
        for loaded in specs
        for path, message in key_region_findings(loaded.checked(), region(loaded.checked()))
    ]
    if problems:
        raise SpecError(problems)


def _check_distinct_targets(specs: Sequence[LoadedSpec], region: Callable[[Spec], str]) -> None:
    """Raise UsageError if two specs of a run write the same SSM parameter or launch template: the last would win."""
    taken: dict[tuple[str, str], str] = {}
    for loaded in specs:
        spec, key = loaded.checked(), str(loaded.key)
        home, parameter = region(spec), image_parameter(loaded)
        for where in spec.publish.everywhere(home):
            written = [f"launch template {target}" for target in template_targets(spec, where, home)]
            written += [f"SSM parameter {parameter.name_in(where)}"] if parameter else []
            for each in written:
                if (other := taken.setdefault((where, each), key)) != key:
                    own = "an axis of the matrix" if loaded.axes else "{{ spec.name }}"
                    hint = f"put {own} into publish.ssm_parameter"
                    raise UsageError(
                        f"specs '{other}' and '{key}' both write {each} in {where}",
                        hint=hint if each.startswith("SSM") else "name a template in one of the specs only",
                    )
