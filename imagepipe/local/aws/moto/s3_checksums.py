"""Checksums of S3's objects and parts: stored with moto's models, checked, and added to moto's answers.

moto stores checksums unchecked and leaves them out of most answers (S3 user guide, "Checking object integrity").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree.ElementTree import Element, SubElement

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.authentication.signature import Request
from imagepipe.local.aws.moto import s3_xml
from imagepipe.local.aws.protocol import bodies, checksums
from imagepipe.local.aws.protocol.checksums import COMPOSITE, FULL_OBJECT, PREFIX
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer

DEFAULT = "CRC64NVME"
"""Algorithm of objects that were written without a checksum."""
COMPUTED_BYTES = 64 << 20
"""Largest object whose default checksum is computed when it is asked for: a second or two under S3's lock."""
OF_UPLOADS = (f"{PREFIX}algorithm", f"{PREFIX}type")
MAX_PARTS = 1000


@dataclass(frozen=True, slots=True)
class Checksum:
    """The checksum of an object or a part."""

    algorithm: str
    value: str
    """In base64, with the number of parts if it is composite."""
    kind: str
    """COMPOSITE or FULL_OBJECT."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return ((PREFIX + self.algorithm.lower(), self.value), (f"{PREFIX}type", self.kind))

    @property
    def elements(self) -> Mapping[str, str]:
        return {f"Checksum{self.algorithm}": self.value, "ChecksumType": self.kind}


def of(key: Any) -> Checksum | None:
    """Return the stored checksum of an object or a part of moto's; None if it has none."""
    algorithm, value = getattr(key, "checksum_algorithm", None), getattr(key, "checksum_value", None)
    if not algorithm or not value:
        return None
    kind = key.checksum_type or FULL_OBJECT
    return Checksum(algorithm, f"{value}-{key.checksum_parts}" if kind == COMPOSITE else value, kind)


def of_object(key: Any) -> Checksum | None:
    """Return an object's checksum; a small object without one gets the default, computed from its bytes."""
    if of(key) is None and key.size <= COMPUTED_BYTES and (path := _path(key)) is not None:
        put(key, DEFAULT, bodies.checksum(DEFAULT, path))
    return of(key)


def put(key: Any, algorithm: str | None, value: str) -> None:
    """Store the checksum of a whole object or a whole part; None if it has none."""
    key.checksum_algorithm, key.checksum_value, key.checksum_type = algorithm, value, FULL_OBJECT


def algorithm_of(upload: Any) -> str | None:
    """Return the algorithm that CreateMultipartUpload stated."""
    found = upload.metadata.get(OF_UPLOADS[0])
    return str(found).upper() if found else None


def kind_of(upload: Any) -> str:
    return checksums.check_type(algorithm_of(upload), upload.metadata.get(OF_UPLOADS[1]))


def check_part(upload: Any, stated: checksums.Stated | None) -> None:
    """Raise AwsError if a part does not come with the checksum that its upload requires."""
    expected, found = algorithm_of(upload), stated.algorithm if stated else None
    is_optional = kind_of(upload) == FULL_OBJECT
    if expected is not None and found != expected and not (found is None and is_optional):
        text = f"Checksum Type mismatch occurred, expected checksum Type: {expected.lower()}, actual checksum Type: "
        raise AwsError("InvalidRequest", text + (found.lower() if found else "null"))


def put_part(part: Any, upload: Any, value: str, stated: checksums.Stated | None) -> None:
    """Store the checksum of a part that was received, or compute the one that its upload needs."""
    if stated is not None:
        put(part, stated.algorithm, value)
    elif (algorithm := algorithm_of(upload)) and (path := _path(part)) is not None:
        put(part, algorithm, bodies.checksum(algorithm, path))


@dataclass(frozen=True, slots=True)
class Completion:
    """A CompleteMultipartUpload: the listed parts, and the checksum of the object that they make."""

    numbers: Sequence[int]
    checksum: Checksum | None


def completion(request: Request, upload: Any | None) -> Completion:
    """Check the request against the upload's parts. Raises AwsError; moto reports missing parts and wrong ETags."""
    listed = list(s3_xml.parsed(request.body).iterfind("{*}Part"))
    numbers = [_number(each) for each in listed]
    if numbers != sorted(set(numbers)):
        text = "The list of parts was not in ascending order. Parts must be ordered by part number."
        raise AwsError("InvalidPartOrder", text)
    parts: list[Any] = [upload.parts.get(number) if upload is not None else None for number in numbers]
    if upload is None or not parts or None in parts:
        return Completion(numbers, None)
    algorithm, kind = algorithm_of(upload), kind_of(upload)
    for number, element, part in zip(numbers, listed, parts, strict=True):
        _check_listed(number, element, part, algorithm if kind == COMPOSITE else None)
    stated = _stated_of_object(request)
    if (type_stated := request.headers.get(f"{PREFIX}type")) not in (None, kind):
        text = f"The upload was created using the {kind} checksum mode. The complete request must use the same"
        raise AwsError("InvalidRequest", f"{text} checksum mode, not {type_stated}.")
    size = sum(part.size for part in parts)
    if request.headers.get("x-amz-mp-object-size", str(size)) != str(size):
        text = f"The provided 'x-amz-mp-object-size' header does not match what was computed: {size}"
        raise AwsError("InvalidRequest", text)
    if algorithm is None and stated is None:
        return Completion(numbers, None)
    found = _of_parts(algorithm or DEFAULT, kind, parts)
    if stated is not None:
        _check_stated(stated, found)
    return Completion(numbers, found)


def _number(element: Element) -> int:
    number = s3_xml.text(element, "PartNumber")
    if not number.isdecimal() or not s3_xml.text(element, "ETag"):
        text = "The XML you provided was not well-formed or did not validate against our published schema"
        raise AwsError("MalformedXML", text)
    return int(number)


def _check_listed(number: int, element: Element, part: Any, required: str | None) -> None:
    """Raise AwsError if a part is listed with another checksum than its own, or without a required one."""
    known, listed = of(part), _elements(element)
    for algorithm, value in listed.items():
        if known is None or (algorithm, value) != (known.algorithm, known.value):
            text = "One or more of the specified parts could not be found. The part may not have been uploaded, or "
            raise AwsError("InvalidPart", f"{text}the specified checksum may not match the checksum of part {number}.")
    if required is not None and required not in listed:
        text = f"The upload was created using a {required.lower()} checksum. The complete request must include the "
        raise AwsError("InvalidRequest", f"{text}checksum for each part. It was missing for part {number}.")


def _elements(element: Element) -> dict[str, str]:
    """Return the checksums among an element's children, by algorithm."""
    names = {f"Checksum{algorithm}": algorithm for algorithm in (*checksums.CHECKSUMS, *checksums.UNSUPPORTED)}
    found = {each.tag.rpartition("}")[2]: each.text or "" for each in element}
    return {names[name]: value for name, value in found.items() if name in names}


def _stated_of_object(request: Request) -> tuple[str, str] | None:
    """Return algorithm and value of the whole object's checksum, if the request states it."""
    for name, value in request.headers.items():
        algorithm = name.removeprefix(PREFIX).upper()
        if name.startswith(PREFIX) and algorithm.lower() not in checksums.SETTINGS:
            checksums.check_algorithm(algorithm)
            checksums.check_value(algorithm, value.partition("-")[0], name)
            return algorithm, value
    return None


def _check_stated(stated: tuple[str, str], found: Checksum) -> None:
    algorithm, value = stated
    if algorithm != found.algorithm:
        text = f"Checksum Type mismatch occurred, expected checksum Type: {found.algorithm.lower()}, "
        raise AwsError("InvalidRequest", f"{text}actual checksum Type: {algorithm.lower()}")
    if value not in (found.value, found.value.partition("-")[0]):
        raise checksums.bad_digest(algorithm)


def _of_parts(algorithm: str, kind: str, parts: Sequence[Any]) -> Checksum:
    """Compute an object's checksum from those of its parts."""
    values = [_part_value(algorithm, part) for part in parts]
    if kind == COMPOSITE:
        return Checksum(algorithm, f"{checksums.composite(algorithm, values)}-{len(parts)}", COMPOSITE)
    sizes = [int(part.size) for part in parts]
    return Checksum(algorithm, checksums.joined(algorithm, list(zip(values, sizes, strict=True))), FULL_OBJECT)


def _part_value(algorithm: str, part: Any) -> str:
    known, path = of(part), _path(part)
    if known is not None and known.algorithm == algorithm:
        return known.value
    return bodies.checksum(algorithm, path) if path is not None else checksums.of(algorithm, b"")


def put_completed(key: Any, done: Completion) -> None:
    """Store the checksum of an object from parts, and forget the parts that are not in it."""
    found = done.checksum
    key.checksum_algorithm = found.algorithm if found else None
    key.checksum_value = found.value.partition("-")[0] if found else None
    key.checksum_type = found.kind if found else None
    key.checksum_parts = len(done.numbers)
    key.multipart.parts = {number: key.multipart.parts[number] for number in done.numbers}
    key.multipart.partlist = list(done.numbers)
    for name in OF_UPLOADS:  # moto keeps them as if they were headers of the object
        key.metadata.pop(name, None)


def requested_algorithm(request: Request) -> str | None:
    """Return the algorithm that the request asks for. Raises AwsError for one that the local cloud lacks."""
    requested = request.headers.get(OF_UPLOADS[0], "").upper()
    if requested:
        checksums.check_algorithm(requested)
    return requested or None


def for_copy(request: Request, source: Any) -> str | None:
    """Return the algorithm of a copy's checksum: the requested one, or the source's. Raises AwsError."""
    return requested_algorithm(request) or getattr(source, "checksum_algorithm", None)


def add_headers(answer: Answer, found: Checksum | None) -> Answer:
    """Replace the checksum headers of moto's answer by these."""
    kept = [(name, value) for name, value in answer.headers if not _is_checksum(name)]
    return replace(answer, headers=(*kept, *(found.headers if found else ())))


def _is_checksum(name: str) -> bool:
    return name.lower().startswith(PREFIX) or name.lower() == checksums.SDK_ALGORITHM


def add_elements(answer: Answer, found: Checksum | None, *, has_type: bool = True) -> Answer:
    """Replace the checksum elements in the result of a copy or of a completed upload by these."""
    wanted: dict[str, object] = {f"Checksum{algorithm}": None for algorithm in checksums.CHECKSUMS}
    wanted |= dict(found.elements) if found else {}
    if not has_type:
        wanted.pop("ChecksumType", None)
    return s3_xml.changed(answer, lambda root: s3_xml.put(root, wanted))


def add_to_parts(answer: Answer, upload: Any) -> Answer:
    """Add checksums to the answer to ListParts."""

    def change(root: Element) -> None:
        algorithm = algorithm_of(upload)
        kind = kind_of(upload) if algorithm else None
        s3_xml.put(root, {"ChecksumAlgorithm": algorithm, "ChecksumType": kind})
        for element in root.iterfind("{*}Part"):
            if found := of(upload.parts.get(int(s3_xml.text(element, "PartNumber")))):
                s3_xml.put(element, {f"Checksum{found.algorithm}": found.value})

    return s3_xml.changed(answer, change)


def add_to_list(answer: Answer, versions: Callable[[str], Sequence[Any]]) -> Answer:
    """Add algorithms and types to a list of objects. `versions` returns the versions of a key, the newest last."""

    def change(root: Element) -> None:
        is_encoded = s3_xml.text(root, "EncodingType") == "url"
        for element in (*root.iterfind("{*}Contents"), *root.iterfind("{*}Version")):
            name, version = s3_xml.text(element, "Key"), s3_xml.text(element, "VersionId")
            name = unquote(name) if is_encoded else name
            named = [key for key in versions(name) if not version or getattr(key, "version_id", None) == version]
            found = of(named[-1]) if named else None
            values = {"ChecksumAlgorithm": found.algorithm, "ChecksumType": found.kind} if found else {}
            s3_xml.put(element, values)

    return s3_xml.changed(answer, change)


def attributes(request: Request, answer: Answer, key: Any) -> Answer:
    """Make the answer to GetObjectAttributes, with the headers of moto's."""
    wanted = {each.strip() for each in request.headers.get("x-amz-object-attributes", "").split(",")}
    if unknown := wanted - {"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"}:
        raise AwsError("InvalidArgument", f"Invalid attribute name specified: {', '.join(sorted(unknown))}")
    root = Element("GetObjectAttributesResponse")
    found = of_object(key)
    if "ETag" in wanted:
        s3_xml.put(root, {"ETag": key.etag.strip('"')})
    if "Checksum" in wanted and found is not None:
        s3_xml.put(SubElement(root, "Checksum"), {**found.elements, f"Checksum{found.algorithm}": _bare(found)})
    if "ObjectParts" in wanted and key.multipart is not None:
        _add_parts(SubElement(root, "ObjectParts"), request, key, found)
    if "StorageClass" in wanted:
        s3_xml.put(root, {"StorageClass": key.storage_class})
    if "ObjectSize" in wanted:
        s3_xml.put(root, {"ObjectSize": key.size})
    headers = {name.lower(): (name, value) for name, value in answer.headers}
    headers["last-modified"] = ("Last-Modified", key.last_modified_RFC1123)
    return replace(answer, headers=tuple(headers.values()), body=s3_xml.serialized(root))


def _bare(found: Checksum) -> str:
    """Return the value without the number of parts, which is an element of its own in GetObjectAttributes."""
    return found.value.partition("-")[0]


def _add_parts(element: Element, request: Request, key: Any, found: Checksum | None) -> None:
    """Add a page of an object's parts. S3 lists them only if they have checksums."""
    marker = _limit(request, "x-amz-part-number-marker", 0)
    limit = _limit(request, "x-amz-max-parts", MAX_PARTS)
    parts = sorted(key.multipart.parts.items())
    s3_xml.put(element, {"PartsCount": len(parts)})
    if found is None or any(of(part) is None for _, part in parts):
        return
    after = [each for each in parts if each[0] > marker]
    page = after[:limit]
    about = {"PartNumberMarker": marker, "NextPartNumberMarker": page[-1][0] if page else 0, "MaxParts": limit}
    s3_xml.put(element, {**about, "IsTruncated": len(after) > len(page)})
    for number, part in page:
        known = of(part)
        values = {f"Checksum{known.algorithm}": known.value} if known else {}
        s3_xml.put(SubElement(element, "Part"), {"PartNumber": number, "Size": part.size, **values})


def _limit(request: Request, header: str, default: int) -> int:
    stated = request.headers.get(header, "")
    if stated and not stated.isdecimal():
        raise AwsError("InvalidArgument", f"Provided {header} not an integer or within integer range")
    return int(stated) if stated else default


def _path(key: Any) -> Path | None:
    return getattr(key._value_buffer, "path", None)
