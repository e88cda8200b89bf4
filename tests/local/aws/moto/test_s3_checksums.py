"""Checksums of objects: a wrong one stores nothing, a right one comes back from every operation that S3 has."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

import pytest

from imagepipe.local.aws.protocol.checksums import UNSUPPORTED, of
from tests.local.aws.harness import Cloud, refused
from tests.local.aws.protocol.test_bodies import answered, chunks, files, head

BUCKET = "bucket"
BODY = os.urandom(3000)
LARGE = b"x" * (5 << 20)
WRONG = b"another body"
ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
COMPOSITES = ("CRC32", "CRC32C", "SHA1", "SHA256")
FULL = ("CRC32", "CRC32C", "CRC64NVME")
EVERYTHING = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]


@pytest.fixture
def s3(cloud: Cloud) -> Any:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    return s3


def stored(cloud: Cloud) -> int:
    """The number of files in the store."""
    return len(files(cloud))


def chosen(answer: dict[str, Any]) -> dict[str, str]:
    """The checksums of an answer, with their type."""
    return {name: value for name, value in answer.items() if name.startswith("Checksum")}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("place", ["PutObject", "UploadPart"])
def test_a_wrong_checksum_in_a_header_stores_nothing(cloud: Cloud, s3: Any, algorithm: str, place: str) -> None:
    params: dict[str, Any] = {"Bucket": BUCKET, "Key": "k", "Body": BODY}
    call = s3.put_object
    if place == "UploadPart":
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key="k", ChecksumAlgorithm=algorithm)["UploadId"]
        params |= {"UploadId": upload, "PartNumber": 1}
        call = s3.upload_part
    with refused("BadDigest", match=f"The {algorithm} you specified did not match"):
        call(**params, **{f"Checksum{algorithm}": of(algorithm, WRONG)})
    with refused("InvalidRequest", match=f"x-amz-checksum-{algorithm.lower()} header is invalid"):
        call(**params, **{f"Checksum{algorithm}": "AAAA"})
    assert stored(cloud) == 0
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    answer = call(**params, **{f"Checksum{algorithm}": of(algorithm, BODY)})
    assert answer[f"Checksum{algorithm}"] == of(algorithm, BODY)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("is_signed", [True, False])
def test_a_wrong_checksum_in_a_trailer_stores_nothing(
    cloud: Cloud, s3: Any, algorithm: str, *, is_signed: bool
) -> None:
    name = f"x-amz-checksum-{algorithm.lower()}"
    signature = ";chunk-signature=" + "0" * 64 if is_signed else ""
    how = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" if is_signed else "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    about = {"x_amz_content_sha256": how, "x_amz_decoded_content_length": str(len(BODY))}
    about |= {"content_encoding": "aws-chunked", "x_amz_trailer": name}

    def send(trailer: str) -> bytes:
        sent = chunks(BODY, 1000, trailer=trailer, signature=signature)
        return answered(cloud, head(cloud, "PUT", f"/{BUCKET}/k", len(sent), **about), sent)

    assert b"BadDigest" in send(f"{name}:{of(algorithm, WRONG)}")
    assert b"InvalidRequest" in send(f"{name}:AAAA")
    assert b"MalformedTrailerError" in send("")
    assert b"MalformedTrailerError" in send("x-amz-checksum-md5:AAAA")
    assert stored(cloud) == 0
    assert b" 200 " in send(f"{name}:{of(algorithm, BODY)}")
    found = s3.head_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")
    assert chosen(found) == {f"Checksum{algorithm}": of(algorithm, BODY), "ChecksumType": "FULL_OBJECT"}


@pytest.mark.parametrize("algorithm", sorted(UNSUPPORTED))
def test_an_algorithm_that_cannot_be_computed_is_refused_and_not_stored_unchecked(
    cloud: Cloud, s3: Any, algorithm: str
) -> None:
    with refused("NotImplemented", match=f"cannot compute {algorithm}; use one of CRC32, CRC32C"):
        s3.put_object(Bucket=BUCKET, Key="k", Body=BODY, **{f"Checksum{algorithm}": "AAAAAAAAAAA="})
    with refused("NotImplemented"):
        s3.create_multipart_upload(Bucket=BUCKET, Key="k", ChecksumAlgorithm=algorithm)
    s3.put_object(Bucket=BUCKET, Key="k", Body=BODY)
    with refused("NotImplemented"):
        s3.copy_object(Bucket=BUCKET, Key="c", CopySource=f"{BUCKET}/k", ChecksumAlgorithm=algorithm)
    assert stored(cloud) == 1


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x_amz_checksum_crc32": of("CRC32", BODY), "x_amz_checksum_sha1": of("SHA1", BODY)}, b"InvalidRequest"),
        ({"x_amz_sdk_checksum_algorithm": "CRC32"}, b"InvalidRequest"),
        ({"x_amz_sdk_checksum_algorithm": "SHA1", "x_amz_checksum_crc32": of("CRC32", BODY)}, b"InvalidRequest"),
        ({"x_amz_checksum_adler": "AAAA"}, b"InvalidRequest"),
        ({"x_amz_content_sha256": hashlib.sha256(WRONG).hexdigest()}, b"XAmzContentSHA256Mismatch"),
        ({"content_md5": base64.b64encode(hashlib.md5(WRONG).digest()).decode()}, b"BadDigest"),
        ({"content_md5": "AAAA"}, b"InvalidDigest"),
    ],
    ids=["two", "only announced", "another announced", "unknown", "sha256", "md5", "no md5"],
)
@pytest.mark.parametrize("is_part", [False, True], ids=["PutObject", "UploadPart"])
def test_headers_that_contradict_the_body_or_each_other_store_nothing(
    cloud: Cloud, s3: Any, headers: dict[str, str], code: bytes, *, is_part: bool
) -> None:
    path = f"/{BUCKET}/k"
    if is_part:
        path += f"?partNumber=1&uploadId={s3.create_multipart_upload(Bucket=BUCKET, Key='k')['UploadId']}"
    found = answered(cloud, head(cloud, "PUT", path, len(BODY), **headers), BODY)
    assert b" 400 " in found
    assert code in found
    assert stored(cloud) == 0


def test_the_checksum_of_another_request_is_checked_too(cloud: Cloud, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=BODY)
    body = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
    wrong = {"x_amz_checksum_crc32": of("CRC32", WRONG)}
    for method, query in (("PUT", "k?tagging"), ("POST", "?delete")):
        sent = answered(cloud, head(cloud, method, f"/{BUCKET}/{query}", len(body), **wrong), body)
        assert b"BadDigest" in sent, query
    assert s3.get_object_tagging(Bucket=BUCKET, Key="k")["TagSet"] == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_objects_checksum_comes_back_from_every_operation(cloud: Cloud, s3: Any, algorithm: str) -> None:
    name, value = f"Checksum{algorithm}", of(algorithm, BODY)
    wanted = {name: value, "ChecksumType": "FULL_OBJECT"}
    assert chosen(s3.put_object(Bucket=BUCKET, Key="k", Body=BODY, **{name: value})) == wanted
    for restarted in (False, True):
        if restarted:
            cloud.restart()
            s3 = cloud.client("s3")
        assert chosen(s3.head_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")) == wanted
        assert chosen(s3.head_object(Bucket=BUCKET, Key="k")) == {}
        assert chosen(s3.get_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")) == wanted
        assert chosen(s3.get_object(Bucket=BUCKET, Key="k", Range="bytes=0-1", ChecksumMode="ENABLED")) == {}
        assert s3.get_object_attributes(Bucket=BUCKET, Key="k", ObjectAttributes=["Checksum"])["Checksum"] == wanted
        [listed] = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
        assert chosen(listed) == {"ChecksumAlgorithm": [algorithm], "ChecksumType": "FULL_OBJECT"}
        [version] = s3.list_object_versions(Bucket=BUCKET)["Versions"]
        assert chosen(version) == chosen(listed)
    assert chosen(s3.copy_object(Bucket=BUCKET, Key="c", CopySource=f"{BUCKET}/k")["CopyObjectResult"]) == wanted
    other = s3.copy_object(Bucket=BUCKET, Key="d", CopySource=f"{BUCKET}/k", ChecksumAlgorithm="SHA512")
    assert chosen(other["CopyObjectResult"]) == {"ChecksumSHA512": of("SHA512", BODY), "ChecksumType": "FULL_OBJECT"}
    assert chosen(s3.head_object(Bucket=BUCKET, Key="d", ChecksumMode="ENABLED")) == chosen(other["CopyObjectResult"])


def test_an_object_without_a_checksum_has_the_default_one(cloud: Cloud, s3: Any) -> None:
    plain = cloud.client("s3", request_checksum_calculation="when_required")
    assert chosen(plain.put_object(Bucket=BUCKET, Key="k", Body=BODY)) == {}
    found = s3.get_object_attributes(Bucket=BUCKET, Key="k", ObjectAttributes=["Checksum"])["Checksum"]
    assert found == {"ChecksumCRC64NVME": of("CRC64NVME", BODY), "ChecksumType": "FULL_OBJECT"}


def upload(s3: Any, **params: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An upload of two parts, and the parts as CompleteMultipartUpload lists them."""
    made = s3.create_multipart_upload(Bucket=BUCKET, Key="k", **params)
    ids = {"Bucket": BUCKET, "Key": "k", "UploadId": made["UploadId"]}
    name = f"Checksum{params['ChecksumAlgorithm']}" if "ChecksumAlgorithm" in params else ""
    parts = []
    for number, body in ((1, LARGE), (2, BODY)):
        given = {name: of(name.removeprefix("Checksum"), body)} if name else {}
        answer = s3.upload_part(**ids, PartNumber=number, Body=body, **given)
        assert not given or answer[name] == given[name]
        parts.append({"PartNumber": number, "ETag": answer["ETag"], **given})
    return ids, parts


CASES = [(each, "COMPOSITE") for each in COMPOSITES] + [(each, "FULL_OBJECT") for each in FULL]


def of_parts(algorithm: str, kind: str) -> str:
    if kind == "FULL_OBJECT":
        return of(algorithm, LARGE + BODY)
    return of(algorithm, b"".join(base64.b64decode(of(algorithm, part)) for part in (LARGE, BODY))) + "-2"


@pytest.mark.parametrize(("algorithm", "kind"), CASES)
def test_an_upload_in_parts_has_its_checksums_in_every_answer(cloud: Cloud, s3: Any, algorithm: str, kind: str) -> None:
    name = f"Checksum{algorithm}"
    ids, parts = upload(s3, ChecksumAlgorithm=algorithm, ChecksumType=kind)
    cloud.restart()
    s3 = cloud.client("s3")
    listed = s3.list_parts(**ids)
    assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == (algorithm, kind)
    assert [part[name] for part in listed["Parts"]] == [part[name] for part in parts]
    [open_upload] = s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert (open_upload["ChecksumAlgorithm"], open_upload["ChecksumType"]) == (algorithm, kind)
    wanted = {name: of_parts(algorithm, kind), "ChecksumType": kind}
    done = s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": parts}, ChecksumType=kind)
    assert chosen(done) == wanted
    again = s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": parts}, ChecksumType=kind)
    assert chosen(again) == wanted
    cloud.restart()
    s3 = cloud.client("s3")
    assert chosen(s3.head_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")) == wanted
    assert chosen(s3.get_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")) == wanted
    found = s3.get_object_attributes(Bucket=BUCKET, Key="k", ObjectAttributes=EVERYTHING)
    assert found["Checksum"] == {name: wanted[name].partition("-")[0], "ChecksumType": kind}
    assert (found["ETag"], found["StorageClass"]) == (done["ETag"].strip('"'), "STANDARD")
    assert found["ObjectSize"] == len(LARGE + BODY)
    assert found["ObjectParts"]["TotalPartsCount"] == 2
    sizes = [
        {"PartNumber": part["PartNumber"], "Size": size, name: part[name]}
        for part, size in zip(parts, (len(LARGE), len(BODY)), strict=True)
    ]
    assert found["ObjectParts"]["Parts"] == sizes
    copied = s3.copy_object(Bucket=BUCKET, Key="c", CopySource=f"{BUCKET}/k")["CopyObjectResult"]
    assert chosen(copied) == {name: of(algorithm, LARGE + BODY), "ChecksumType": "FULL_OBJECT"}
    assert "ObjectParts" not in s3.get_object_attributes(Bucket=BUCKET, Key="c", ObjectAttributes=EVERYTHING)


def test_the_parts_of_an_object_come_in_pages_without_those_that_were_left_out(s3: Any) -> None:
    ids, parts = upload(s3, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    s3.upload_part(**ids, PartNumber=9, Body=b"left out")
    s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": parts})
    seen, marker = [], 0
    for _ in range(2):
        page = s3.get_object_attributes(
            Bucket=BUCKET, Key="k", ObjectAttributes=["ObjectParts"], MaxParts=1, PartNumberMarker=marker
        )["ObjectParts"]
        seen += [part["PartNumber"] for part in page["Parts"]]
        assert (page["TotalPartsCount"], page["MaxParts"], page["PartNumberMarker"]) == (2, 1, marker)
        marker = page["NextPartNumberMarker"]
    assert (seen, page["IsTruncated"]) == ([1, 2], False)
    assert s3.head_object(Bucket=BUCKET, Key="k", PartNumber=1)["PartsCount"] == 2


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ChecksumCRC32": of("CRC32", WRONG)}, "BadDigest"),
        ({"ChecksumCRC32": "AAAA"}, "InvalidRequest"),
        ({"ChecksumSHA1": of("SHA1", LARGE + BODY)}, "InvalidRequest"),
        ({"ChecksumType": "COMPOSITE"}, "InvalidRequest"),
        ({"MpuObjectSize": 7}, "InvalidRequest"),
    ],
    ids=["wrong", "invalid", "another algorithm", "another type", "another size"],
)
def test_an_upload_whose_object_is_not_the_stated_one_is_not_completed(
    cloud: Cloud, s3: Any, change: dict[str, Any], code: str
) -> None:
    ids, parts = upload(s3, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    with refused(code):
        s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": parts}, **change)
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    right = {"ChecksumCRC32": of("CRC32", LARGE + BODY), "ChecksumType": "FULL_OBJECT"}
    s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": parts}, **right, MpuObjectSize=len(LARGE + BODY))


def test_parts_must_have_the_checksums_of_their_upload(s3: Any) -> None:
    ids, parts = upload(s3, ChecksumAlgorithm="SHA256")
    with refused("InvalidRequest", match="expected checksum Type: sha256, actual checksum Type: sha1"):
        s3.upload_part(**ids, PartNumber=3, Body=BODY, ChecksumSHA1=of("SHA1", BODY))
    bare = [{name: part[name] for name in ("PartNumber", "ETag")} for part in parts]
    with refused("InvalidRequest", match="missing for part 1"):
        s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": bare})
    other = [{**parts[0], "ChecksumSHA256": of("SHA256", WRONG)}, parts[1]]
    with refused("InvalidPart"):
        s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": other})
    s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": parts})


def test_parts_that_are_listed_out_of_order_or_twice_are_refused(s3: Any) -> None:
    ids, parts = upload(s3)
    for listed in (parts[::-1], [parts[0], parts[0]]):
        with refused("InvalidPartOrder"):
            s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": listed})
    s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": parts})


def test_a_wrong_md5_of_a_body_in_chunks_stores_nothing(cloud: Cloud, s3: Any) -> None:
    sent = chunks(BODY, 1000)
    about = {"x_amz_content_sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "content_encoding": "aws-chunked"}
    about |= {"x_amz_decoded_content_length": str(len(BODY))}
    for body, wanted in ((WRONG, b"BadDigest"), (BODY, b" 200 ")):
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        found = answered(cloud, head(cloud, "PUT", f"/{BUCKET}/k", len(sent), **about, content_md5=md5), sent)
        assert wanted in found
        assert stored(cloud) == (body == BODY)
    assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == BODY


@pytest.mark.parametrize("body", [b"", b"<a", b"<CompleteMultipartUpload><Part/></CompleteMultipartUpload>"])
def test_a_list_of_parts_that_cannot_be_read_is_refused(cloud: Cloud, s3: Any, body: bytes) -> None:
    ids, _ = upload(s3)
    path = f"/{BUCKET}/k?uploadId={ids['UploadId']}"
    assert b"MalformedXML" in answered(cloud, head(cloud, "POST", path, len(body)), body)


def test_a_copied_part_has_the_checksum_of_its_bytes(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="source", Body=BODY)
    made = s3.create_multipart_upload(Bucket=BUCKET, Key="k", ChecksumAlgorithm="SHA256")
    ids = {"Bucket": BUCKET, "Key": "k", "UploadId": made["UploadId"]}
    source = {"CopySource": f"{BUCKET}/source", "CopySourceRange": "bytes=10-19"}
    part = s3.upload_part_copy(**ids, PartNumber=1, **source)["CopyPartResult"]
    assert chosen(part) == {"ChecksumSHA256": of("SHA256", BODY[10:20])}
    listed = [{"PartNumber": 1, "ETag": part["ETag"], **chosen(part)}]
    done = s3.complete_multipart_upload(**ids, MultipartUpload={"Parts": listed})
    assert done["ChecksumSHA256"].endswith("-1")


def test_an_algorithm_and_a_type_that_do_not_fit_are_refused(s3: Any) -> None:
    with refused("InvalidRequest", match="FULL_OBJECT checksum type cannot be used with the sha256"):
        s3.create_multipart_upload(Bucket=BUCKET, Key="k", ChecksumAlgorithm="SHA256", ChecksumType="FULL_OBJECT")
    with refused("InvalidRequest"):
        s3.create_multipart_upload(Bucket=BUCKET, Key="k", ChecksumType="FULL_OBJECT")
    with refused("InvalidRequest", match="unsupported"):
        s3.create_multipart_upload(Bucket=BUCKET, Key="k", ChecksumAlgorithm="ADLER")


@pytest.mark.parametrize("wanted", [["ETag"], ["ObjectSize", "StorageClass"], EVERYTHING])
def test_exactly_the_attributes_that_were_asked_for_come_back(s3: Any, wanted: list[str]) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=BODY)
    found = s3.get_object_attributes(Bucket=BUCKET, Key="k", ObjectAttributes=wanted)
    assert set(found) - {"ResponseMetadata", "LastModified"} == set(wanted) - {"ObjectParts"}
    assert found["LastModified"] == s3.head_object(Bucket=BUCKET, Key="k")["LastModified"]


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])  # the others need awscrt in the client
def test_an_algorithm_of_boto3_stores_the_checksum_that_it_sends(s3: Any, algorithm: str) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=BODY, ChecksumAlgorithm=algorithm)
    found = s3.head_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")
    assert found[f"Checksum{algorithm}"] == of(algorithm, BODY)
