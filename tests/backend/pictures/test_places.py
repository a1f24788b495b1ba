"""Places: the key of an address, what counts as Label Studio's own, and names of files."""

import httpx
import pytest

from heatbox.errors import AddressRefusedError
from heatbox.pictures.places import StudioRoot, find_place, next_url, stable

PATH = "https://bucket.example/in/cat.jpg"


def root(url="https://studio.example/ls"):
    return StudioRoot(httpx.URL(url))


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("X-Amz-Algorithm=A&X-Amz-Date=1&X-Amz-Security-Token=t&X-Amz-Signature=s", ""),
        ("versionId=3&x-amz-signature=s&X-Amz-Expires=60", "?versionId=3"),
        ("X-Goog-Algorithm=A&X-Goog-Credential=c&X-Goog-Signature=s&generation=2", "?generation=2"),
        ("AWSAccessKeyId=a&Signature=s&Expires=1", ""),
        ("GoogleAccessId=a&Signature=s&Expires=1", ""),
        ("Policy=p&Signature=s&Key-Pair-Id=k", ""),
        ("sv=2024&se=1&sr=b&sp=r&sig=s&skoid=1&sktid=2&skt=3&ske=4&sks=b&skv=5&snapshot=7", "?snapshot=7"),
    ],
)
def test_what_only_signs_an_address_is_not_in_its_key(query, kept):
    assert stable(httpx.URL(f"{PATH}?{query}")) == PATH + kept


@pytest.mark.parametrize(
    "query", ["", "?token=a", "?Signature=s", "?sig=1", "?se=1&sp=2", "?Expires=1&id=%2F%20+b"]
)
def test_an_address_that_does_not_look_presigned_is_its_own_key(query):
    assert stable(httpx.URL(PATH + query)) == PATH + query


@pytest.mark.parametrize(
    "url",
    [
        "https://studio.example/ls/data/upload/7/a.jpg",
        "https://studio.example:443/ls/data/local-files/?d=a.jpg",
        "HTTPS://STUDIO.example/ls/tasks/7/resolve/?fileuri=x",
        "https://studio.example/ls/storage-data/uploaded/?filepath=upload/a.jpg",
    ],
)
def test_pictures_below_the_very_address_of_label_studio_are_its_own(url):
    assert root().has_pictures_at(find_place(url, None, None).url)


@pytest.mark.parametrize(
    "url",
    [
        "http://studio.example/ls/data/upload/7/a.jpg",
        "https://studio.example:8443/ls/data/upload/7/a.jpg",
        "https://studio.example.evil.example/ls/data/upload/7/a.jpg",
        "https://studio.example./ls/data/upload/7/a.jpg",
        "https://studio.example/data/upload/7/a.jpg",
        "https://studio.example/ls2/data/upload/7/a.jpg",
        "https://studio.example/LS/data/upload/7/a.jpg",
        "https://studio.example/ls/../data/upload/7/a.jpg",
        "https://studio.example/ls/data/upload/../../api/projects/",
        "https://studio.example/ls/data/upload/%2e%2e/%2e%2e/api/projects/",
        "https://studio.example/ls/api/projects/",
        "https://studio.example/ls//data/upload/7/a.jpg",
        "https://studio.example/ls%2Fdata/upload/7/a.jpg",
    ],
)
def test_nothing_else_is(url):
    assert not root().has_pictures_at(httpx.URL(url))


OPENED = [
    "/tasks/77/resolve/?fileuri=x",
    "/tasks/77/presign/?fileuri=x",
    "/projects/7/resolve/?fileuri=x",
    "/projects/7/presign/?fileuri=x",
]


@pytest.mark.parametrize("path", OPENED)
@pytest.mark.parametrize(
    "written", ["{}", "/ls{}", "https://studio.example/ls{}", "HTTPS://Studio.Example:443/ls/a/..{}"]
)
def test_no_task_names_what_label_studio_opens_for_another(written, path):
    with pytest.raises(AddressRefusedError, match="opens a cloud address") as caught:
        find_place(written.format(path), 7, root())
    assert "cloud address itself" in caught.value.remedy


@pytest.mark.parametrize("path", OPENED)
def test_such_a_path_elsewhere_is_an_address_like_others(path):
    place = find_place("https://other.example/ls" + path, 7, root())
    assert not root().has_pictures_at(place.url)


@pytest.mark.parametrize("address", ["/data/upload/7/a.jpg", "/ls/data/upload/7/a.jpg"])
def test_an_upload_has_one_key_however_the_task_names_it(address):
    key = "https://studio.example/ls/data/upload/7/a.jpg"
    assert find_place(address, None, root()).key == find_place(key, None, root()).key == key


def test_a_cloud_address_is_its_own_key_and_asked_through_the_task():
    place = find_place("s3://bucket/in/ü.jpg", 7, root())
    assert str(place.url) == "https://studio.example/ls/tasks/7/resolve/?fileuri=czM6Ly9idWNrZXQvaW4vw7wuanBn"
    assert place.key == find_place("s3://bucket/in/ü.jpg", 8, root()).key
    assert place.asked != find_place("s3://bucket/in/ü.jpg", 8, root()).asked
    assert place.name == "ü.jpg"


@pytest.mark.parametrize(
    ("address", "task", "studio", "words"),
    [
        ("s3://b/a.jpg", None, root(), "no task"),
        ("gs://b/a.jpg", 7, None, "only Label Studio opens"),
        ("/data/upload/7/a.jpg", 7, None, "not known"),
    ],
)
def test_what_needs_label_studio_or_a_task_says_so(address, task, studio, words):
    with pytest.raises(AddressRefusedError, match=words) as caught:
        find_place(address, task, studio)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host.example/a.jpg",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "javascript://a",
        "data:text/html;base64,aHVzaA==",
        "data:image/svg+xml,<svg/>",
        "http://user:hush@host.example/a.jpg",
        "http://hush@host.example/a.jpg",
        "http://",
        "http:///a.jpg",
        "http://[::1/a.jpg",
        "http://host.example:99999/a.jpg",
        "http://host.example:0/a.jpg",
        "http://host.example:x/a.jpg",
        "http://0177.0.0.1/a.jpg",
        "http://ho\nst.example/a.jpg",
        "http://xn--a/a.jpg",
        "http://XN--0/a.jpg",
        "http://xn--zzzzzzzz-/hush.jpg",
        "https://\u2100.example/a.jpg",
        "http://host.example/\ud800.jpg",
        "http://host.example/" + "a" * 70_000,
    ],
)
def test_what_is_no_address_of_a_picture_is_refused_without_being_shown(address):
    with pytest.raises(AddressRefusedError) as caught:
        find_place(address, 7, root())
    assert "hush" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b.jpg", "https://host.example/b.jpg"),
        ("b.jpg#top", "https://host.example/a/b.jpg"),
        ("//other.example/b.jpg", "https://other.example/b.jpg"),
    ],
)
def test_a_redirect_may_be_relative(location, target):
    assert str(next_url(httpx.URL("https://host.example/a/a.jpg"), location)) == target


@pytest.mark.parametrize(
    "location",
    [
        "http://host.example/b.jpg",
        "file:///etc/passwd",
        "ftp://a/b",
        "https://a:b@c/",
        "https://[::",
        "https://xn--a/b.jpg",
        "//xn--0/b.jpg",
        "data:,x",
    ],
)
def test_a_redirect_leads_to_http_only_and_never_away_from_tls(location):
    with pytest.raises(AddressRefusedError):
        next_url(httpx.URL("https://host.example/a.jpg"), location)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/in/cat.jpg", "cat.jpg"),
        ("/in/k%C3%A4fer%20%F0%9F%90%9E.PNG", "käfer 🐞.PNG"),
        ("/in/%2e%2e%2fcat.jpg", "cat.jpg"),
        ("/s3cr3t", "picture"),
        ("/", "picture"),
        ("/.jpg", "picture"),
        ("/" + "a" * 300 + ".jpg", "picture.jpg"),
        ("/a%00b.jpg", "picture.jpg"),
        ("/a%0Ab.jpg", "picture.jpg"),
        ("/data/local-files/?d=x/cat.jpg", "cat.jpg"),
    ],
)
def test_a_file_has_the_pictures_name_where_it_is_one(path, name):
    assert find_place(f"https://host.example{path}", None, None).name == name
