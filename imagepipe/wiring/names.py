"""The names of the images of one run, compared before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from imagepipe.errors import UsageError
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import Spec


def check_distinct_names(specs: Sequence[LoadedSpec], region: Callable[[Spec], str]) -> None:
    """Raise UsageError if two specs of a run want the same image name in the same region: both would find it free.

    A name that needs the source image is known only during the run; RegisterImage then refuses the second image.
    """
    taken: dict[tuple[str, str], str] = {}
    for loaded in specs:
        spec, key = loaded.checked(), str(loaded.key)
        name = spec.output.name
        for where in dict.fromkeys((region(spec), *spec.publish.regions)):
            if isinstance(name, str) and (other := taken.setdefault((where, name), key)) != key:
                own = "the axes of the matrix" if loaded.axes else "{{ spec.name }}"
                raise UsageError(
                    f"specs '{other}' and '{key}' both name their image '{name}' in {where}",
                    hint=f"put {own} into output.name, or build one after the other",
                )
