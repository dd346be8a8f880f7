"""Which folders an import may read.

At stake: a client that can name any uri reads the server's own files, another project's data in the
object store, or makes the server call hosts inside its network.
"""

import json
from pathlib import Path

import pytest

from core.errors import ConfigError, InvalidRequest
from infra.imports.locations import (
    Folder,
    ImportLocations,
    S3Access,
    own_folder,
    parsed,
    read_locations,
)

HERE = S3Access(endpoint="http://s3.local")


def locations(text: str, *own: str, integrations: Path | None = None) -> ImportLocations:
    return read_locations(text, integrations, HERE, [own_folder(url) for url in own])


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/in/set/../../firn/",
        "s3://bucket/in/%2e%2e/firn/",
        "s3://bucket/in/./x",
        "s3://bucket/in//x",
        "s3://bucket/in/x\\..\\y",
        "s3://bucket/in/x?versionId=1",
        "s3://bucket/in/x#y",
        "s3://bucket/in/x\0",
        "s3://bucket/in/x\n",
        "s3://bucket/in/übung",
        "s3://user:pw@bucket/in/x",
        "s3://bucket:9000/in/x",
        "s3://169.254.169.254:80/latest",
        "S3://bucket/in/x",
        "s3:/bucket/in/x",
        "s3://",
        "s3:///in/x",
        "s3://..",
        "http://bucket/in/x",
        "https://bucket.s3.amazonaws.com/in/x",
        "gs://bucket/in/x",
        "gopher://bucket/in/x",
        "file://localhost/data/in/x",
        "file://server/data/in/x",
        "file:data/in/x",
        "file://",
        "/data/in/x",
        "data/in/x",
        "file:///data/in/../../etc/",
        "file:///data/in/%2e%2e/etc",
        "file:////data/in/x",
        "file:///~root/in/x~",
        "",
        "s3://bucket/" + "x" * 1500,
    ],
)
def test_what_can_be_understood_in_two_ways_is_refused(uri: str) -> None:
    both = locations("s3://bucket/in/,file:///data/in/")
    with pytest.raises(InvalidRequest):
        both.place(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/",
        "s3://bucket/inside/x/",
        "s3://bucket/i",
        "s3://bucket2/in/x/",
        "s3://buck/et/in/x",
        "file:///data/",
        "file:///data/inside",
        "file:///",
        "file:///etc/",
        "file:///bucket/in/x",
    ],
)
def test_prefixes_are_matched_by_whole_parts_and_the_text_names_the_setting(uri: str) -> None:
    both = locations("s3://bucket/in/,file:///data/in/")
    with pytest.raises(InvalidRequest, match="FIRNDB_IMPORT_LOCATIONS"):
        both.place(uri)


def test_a_folder_in_a_location_is_found_with_its_credentials() -> None:
    both = locations(" s3://bucket/in/ , file:///data/in ")
    place = both.place("s3://bucket/in/a b/c")
    assert (place.root, place.parts) == (Folder("bucket", ("in",)), ("a b", "c"))
    assert place.access == HERE
    assert str(place.folder) == "s3://bucket/in/a b/c/"
    assert both.place("file:///data/in").folder == Folder("", ("data", "in"))


def test_without_the_setting_nothing_can_be_imported() -> None:
    with pytest.raises(InvalidRequest, match="FIRNDB_IMPORT_LOCATIONS"):
        locations("").place("s3://bucket/in/")


@pytest.mark.parametrize(
    ("own", "uri"),
    [
        ("s3://bucket/in/firn", "s3://bucket/in/firn/"),
        ("s3://bucket/in/firn", "s3://bucket/in/firn/0123/"),
        ("s3://bucket/in/firn/", "s3://bucket/in/"),
        ("s3://bucket", "s3://bucket/in/x"),
        ("/data/in/firn", "file:///data/in/firn/objects"),
        ("file:///data/in/firn", "file:///data/in/"),
        ("/data/in/x/../firn", "file:///data/in/firn/objects"),
    ],
)
def test_the_servers_own_files_are_never_read_whatever_is_configured(own: str, uri: str) -> None:
    both = locations("s3://bucket/in/,file:///data/in/", own)
    with pytest.raises(InvalidRequest, match="this server itself"):
        both.place(uri)


def test_a_neighbour_of_the_servers_own_files_can_be_read() -> None:
    both = locations("s3://bucket/", "s3://bucket/firn")
    assert both.place("s3://bucket/firnification/").parts == ("firnification",)


def test_an_integration_has_locations_and_credentials_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "integrations.json"
    given = {"locations": ["s3://theirs/x/"], "access_key": "k", "secret_key": "s"}
    path.write_text(json.dumps({"partner": given}))
    both = locations("s3://bucket/in/", integrations=path)
    place = both.place("s3://theirs/x/y/", "partner")
    assert place.access == S3Access(access_key="k", secret_key="s")
    for uri, name in (("s3://theirs/x/y/", ""), ("s3://bucket/in/", "partner")):
        with pytest.raises(InvalidRequest, match="does not lie in a location"):
            both.place(uri, name)
    with pytest.raises(InvalidRequest, match="FIRNDB_IMPORT_INTEGRATIONS"):
        both.place("s3://bucket/in/", "nobody")


@pytest.mark.parametrize("text", ["bucket/in", "http://x/y", "file:///", "s3://bucket/%2e/"])
def test_a_wrong_setting_ends_the_start_and_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="FIRNDB_IMPORT_LOCATIONS"):
        locations(text)


@pytest.mark.parametrize("text", ["", "[]", '{"a": {"locations": ["x"]}}', '{"a": {"no": 1}}'])
def test_a_wrong_file_of_integrations_ends_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "integrations.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="FIRNDB_IMPORT_INTEGRATIONS"):
        locations("", integrations=path)


def test_a_configured_link_is_followed_once_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    linked = locations(f"file://{tmp_path}/link/", str(tmp_path / "real" / "firn"))
    with pytest.raises(InvalidRequest, match="this server itself"):
        linked.place(f"file://{tmp_path}/real/firn/")
    assert parsed(f"file://{tmp_path}/real/").holds(
        linked.place(f"file://{tmp_path}/real/x").folder
    )
