"""Addresses in tasks: which local file one names, what is refused, and that a refusal gives nothing away."""

import os
from urllib.parse import quote

import pytest

from heatbox.errors import AddressRefusedError, PictureError, PictureNotFoundError
from heatbox.pictures.addresses import is_cloud, is_local_files, is_remote, resolve


@pytest.fixture
def place(tmp_path):
    """A root with pictures, a neighbour whose name begins alike, and a secret outside."""
    for name in ("root/cat.jpg", "root/in side/é ü.jpg", "root/100%.jpg", "rootx/dog.jpg", "secret.jpg"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"picture")
    (tmp_path / "root" / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "root" / "outside").symlink_to(tmp_path)
    (tmp_path / "root" / "lost.jpg").symlink_to(tmp_path / "no-such-file.jpg")
    (tmp_path / "root" / "same.jpg").symlink_to("cat.jpg")
    (tmp_path / "root" / "circle.jpg").symlink_to("circle.jpg")
    os.mkfifo(tmp_path / "root" / "pipe.jpg")
    return tmp_path


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("{root}/cat.jpg", "cat.jpg"),
        ("file://{root}/cat.jpg", "cat.jpg"),
        ("file://localhost{root}/cat.jpg", "cat.jpg"),
        ("FILE:{root}/cat.jpg", "cat.jpg"),
        ("/data/local-files/?d=cat.jpg", "cat.jpg"),
        ("/data/local-files?d=/cat.jpg", "cat.jpg"),
        ("http://studio.example:8080/data/local-files/?d=cat.jpg", "cat.jpg"),
        ("https://studio.example/sub/data/local-files/?d=cat.jpg&t=1", "cat.jpg"),
        ("{root}/in side/é ü.jpg", "in side/é ü.jpg"),
        ("{quoted}/in%20side/%C3%A9%20%C3%BC.jpg", "in side/é ü.jpg"),
        ("file://{quoted}/in%20side/%C3%A9%20%C3%BC.jpg", "in side/é ü.jpg"),
        ("/data/local-files/?d=in%20side/%C3%A9%20%C3%BC.jpg", "in side/é ü.jpg"),
        ("/data/local-files/?d=in+side/é ü.jpg", "in side/é ü.jpg"),
        ("{root}/100%.jpg", "100%.jpg"),
        ("{root}/./same.jpg", "cat.jpg"),
    ],
)
def test_an_address_in_a_root_becomes_its_file(place, address, name):
    root = place / "root"
    assert resolve(address.format(root=root, quoted=quote(str(root))), [root]) == root / name


def test_every_root_is_looked_into(place):
    roots = [place / "root", place / "rootx"]
    assert resolve("/data/local-files/?d=dog.jpg", roots) == place / "rootx" / "dog.jpg"


def test_a_root_may_itself_be_a_link(place):
    (place / "link").symlink_to("root")
    assert resolve(f"{place}/link/cat.jpg", [place / "link"]) == place / "root" / "cat.jpg"


@pytest.mark.parametrize(
    "address",
    [
        "{place}/secret.jpg",
        "{place}/rootx/dog.jpg",
        "{place}/root/../secret.jpg",
        "{place}/root/%2e%2e/secret.jpg",
        "{place}/root/in side/../cat.jpg",
        "{place}/root/out.jpg",
        "{place}/root/lost.jpg",
        "{place}/root/outside/secret.jpg",
        "{place}/root/circle.jpg",
        "file://{place}/secret.jpg",
        "file://{place}/root/%2E%2E/secret.jpg",
        "file://server{place}/root/cat.jpg",
        "/data/local-files/?d=../secret.jpg",
        "/data/local-files/?d=%2e%2e/secret.jpg",
        "/data/local-files/?d=outside/secret.jpg",
        "/data/local-files/?d={place}/secret.jpg/../root/cat.jpg",
        "http://studio.example/data/local-files/?d=..%2Fsecret.jpg",
        "/etc/passwd",
        "/proc/self/environ",
        "cat.jpg",
        "./cat.jpg",
        "",
        "~/cat.jpg",
        "{place}/root/cat.jpg\0.png",
        "{place}/root/%00cat.jpg",
        "/data/local-files/?d=cat.jpg%00",
        "{place}/root/\ud800.jpg",
        "http://[::1/data/local-files/?d=cat.jpg",
    ],
)
def test_an_address_outside_the_roots_is_refused(place, address):
    with pytest.raises(AddressRefusedError) as caught:
        resolve(address.format(place=place), [place / "root"])
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["pipe.jpg", "in side", ""])
def test_what_is_no_regular_file_is_refused(place, name):
    with pytest.raises(AddressRefusedError, match="not a regular file"):
        resolve(f"{place}/root/{name}", [place / "root"])


def test_devices_are_refused_also_where_their_folder_is_allowed(place):
    with pytest.raises(AddressRefusedError, match="not a regular file"):
        resolve("/dev/zero", [place, type(place)("/dev")])


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://example.org/cat.jpg?token=hush", "http address"),
        ("HTTPS://example.org/cat.jpg", "https address"),
        ("s3://bucket/hush/cat.jpg", "s3 address"),
        ("s3://bucket/data/local-files/?d=cat.jpg", "s3 address"),
        ("gs://bucket/cat.jpg", "gs address"),
        ("azure-blob://container/cat.jpg", "azure-blob address"),
        ("data:image/png;base64,aHVzaA==", "data address"),
        ("/data/upload/7/1f2e-cat.jpg", "upload inside Label Studio"),
    ],
)
def test_an_address_that_is_not_local_is_refused_without_repeating_it(place, address, words):
    with pytest.raises(AddressRefusedError, match=words) as caught:
        resolve(address, [place / "root"])
    assert "Give a local file" in caught.value.remedy
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["gone.jpg", "in side/gone.jpg", "cat.jpg/gone.jpg", "x" * 300])
def test_a_file_that_is_missing_in_a_root_is_not_found(place, name):
    with pytest.raises(PictureNotFoundError):
        resolve(f"/data/local-files/?d={name}", [place / "root"])


@pytest.mark.parametrize(
    "address", ["{place}/{name}.jpg", "file://{place}/{name}.jpg", "{place}/root/outside/{name}.jpg"]
)
def test_a_refusal_does_not_tell_whether_the_file_exists(place, address):
    told = []
    for name in ("secret", "absent"):
        with pytest.raises(PictureError) as caught:
            resolve(address.format(place=place, name=name), [place / "root"])
        told.append(str(caught.value).replace(name, "NAME"))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "address",
    [
        "{place}/secret.jpg",
        "{place}/root/pipe.jpg",
        "/data/local-files/?d=gone.jpg",
        "/data/local-files/?d=../a.jpg",
    ],
)
def test_no_error_names_a_root_or_a_folder(place, address):
    with pytest.raises(PictureError) as caught:
        resolve(address.format(place=place), [place / "root"])
    assert str(place) not in str(caught.value)


@pytest.mark.parametrize("address", ["{place}/root/cat.jpg", "/data/local-files/?d=cat.jpg"])
def test_without_roots_everything_is_refused_with_the_setting_to_set(place, address):
    with pytest.raises(AddressRefusedError) as caught:
        resolve(address.format(place=place), [])
    assert "HEATBOX_LOCAL_ROOTS" in caught.value.remedy


@pytest.mark.parametrize(
    ("address", "remote", "local_files"),
    [
        ("http://example.org/cat.jpg", True, False),
        ("http://example.org/data/local-files/?d=cat.jpg", False, True),
        ("/data/local-files/?d=cat.jpg", False, True),
        ("file:///cat.jpg", False, False),
        ("12:30.jpg", False, False),
        ("cat.jpg", False, False),
    ],
)
def test_kinds_of_addresses_are_told_apart(address, remote, local_files):
    assert (is_remote(address), is_local_files(address)) == (remote, local_files)


@pytest.mark.parametrize(
    "address", ["s3://b/a.jpg", "S3://b/a.jpg", " \ngs://b/a.jpg", "Azure-Blob://b/a.jpg"]
)
def test_an_address_in_a_cloud_is_known_however_it_is_written(address):
    assert is_cloud(address)


@pytest.mark.parametrize("address", ["", "s3:/b", "https://s3.example/s3://b", "/s3://b", "s3n://b"])
def test_other_addresses_are_in_no_cloud(address):
    assert not is_cloud(address)
