"""The files of an import as they are listed and opened.

At stake: a link in an uploaded folder that leads out of it, and a file that changes while an import
that was interrupted cuts it into rows.
"""

import os
from pathlib import Path

import pytest

from core.errors import FailedPrecondition, InvalidRequest, NotFound
from core.limits import IMPORT_FILE_BYTES_MAX, IMPORT_FILES_MAX
from infra.imports.locations import ImportLocations, S3Access, read_locations
from infra.imports.source import LocalSource, Source, SourceFile, open_source
from infra.objects.open import open_store
from infra.services.service import Service


def source_of(root: Path, below: str = "set") -> LocalSource:
    where: ImportLocations = read_locations(f"file://{root}/", None, S3Access(), [])
    return LocalSource(where.place(f"file://{root}/{below}/"))


async def content(source: Source, file: SourceFile) -> bytes:
    with os.fdopen(await source.open(file), "rb") as opened:
        opened.seek(0)
        return opened.read()


async def test_sub_folders_are_namespaces_and_other_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("a/1.parquet", "a/x/2.parquet", "a-b/3.parquet", "0.parquet", "a/.log"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    source = source_of(tmp_path)
    files = await source.files()
    assert [file.path for file in files] == ["a/1.parquet", "a/x/2.parquet", "a-b/3.parquet"]
    assert [await content(source, file) for file in files] == [f.path.encode() for f in files]


async def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.parquet").write_bytes(b"secret")
    inside = tmp_path / "in" / "set" / "ns"
    inside.mkdir(parents=True)
    (inside / "link.parquet").symlink_to(outside / "secret.parquet")
    (inside / "folder").symlink_to(outside)
    (inside.parent / "linked-ns").symlink_to(outside)

    os.mkfifo(inside / "pipe.parquet")
    (tmp_path / "in" / "elsewhere").symlink_to(outside.parent)
    source = source_of(tmp_path / "in")
    assert await source.files() == []
    with pytest.raises(FailedPrecondition):
        await source.open(SourceFile("ns/link.parquet", 6, 0))
    with pytest.raises(NotFound, match="links are not followed"):
        await source.open(SourceFile("linked-ns/secret.parquet", 6, 0))
    with pytest.raises(NotFound, match="links are not followed"):
        await source_of(tmp_path / "in", "elsewhere/outside").files()


async def test_a_file_that_was_changed_since_it_was_listed_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "set" / "ns" / "1.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"first")
    source = source_of(tmp_path)
    (file,) = await source.files()
    path.write_bytes(b"second")
    with pytest.raises(FailedPrecondition, match="was changed since"):
        await source.open(file)
    path.unlink()
    with pytest.raises(FailedPrecondition):
        await source.open(file)


async def test_files_are_bounded_in_number_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (IMPORT_FILES_MAX, IMPORT_FILE_BYTES_MAX) == (100_000, 10 << 30)
    for number in range(3):
        path = tmp_path / "set" / "ns" / f"{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)
    monkeypatch.setattr("infra.imports.source.IMPORT_FILES_MAX", 2)
    with pytest.raises(InvalidRequest, match="2 Parquet files at most"):
        await source_of(tmp_path).files()
    monkeypatch.setattr("infra.imports.source.IMPORT_FILE_BYTES_MAX", 9)
    with pytest.raises(InvalidRequest, match=r"parquet has 10 bytes; a file has 9 at most"):
        await source_of(tmp_path).files()


async def test_a_folder_in_s3(tmp_path: Path, s3_service: Service) -> None:
    given = s3_service.settings
    access = S3Access(
        given["FIRNDB_S3_ENDPOINT"], given["FIRNDB_S3_ACCESS_KEY"], given["FIRNDB_S3_SECRET_KEY"]
    )
    root = f"{given['FIRNDB_OBJECT_STORE']}/import-source-{os.getpid()}"
    place = read_locations(f"{root}/", None, access, []).place(f"{root}/set/")
    store = open_store(
        str(place.folder),
        s3_endpoint=access.endpoint,
        s3_access_key=access.access_key,
        s3_secret_key=access.secret_key,
    )
    source = open_source(place, tmp_path)
    try:
        await store.put("ns/1.parquet", b"x" * 100)
        await store.put("ns/1.log", b"x")
        await store.put("0.parquet", b"x")
        (file,) = await source.files()
        assert (file.path, file.size) == ("ns/1.parquet", 100)
        assert await content(source, file) == b"x" * 100
        await store.put("ns/1.parquet", b"y" * 101)
        with pytest.raises(FailedPrecondition, match="was changed since"):
            await source.open(file)
        assert not os.listdir(tmp_path), "copies have no name"
    finally:
        await source.close()
        await store.close()


async def test_a_bucket_that_is_not_there_is_said(tmp_path: Path, s3_service: Service) -> None:
    given = s3_service.settings
    access = S3Access(
        given["FIRNDB_S3_ENDPOINT"], given["FIRNDB_S3_ACCESS_KEY"], given["FIRNDB_S3_SECRET_KEY"]
    )
    place = read_locations("s3://not-there/", None, access, []).place("s3://not-there/x/")
    source = open_source(place, tmp_path)
    try:
        with pytest.raises(FailedPrecondition, match=r"s3://not-there/x/.*no such bucket"):
            await source.files()
    finally:
        await source.close()
