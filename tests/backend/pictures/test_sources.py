"""Sources: what files, folders, patterns and tasks files on the command line name."""

import json
import os

import pytest
from PIL import Image

from heatbox.errors import AddressRefusedError, PictureNotFoundError, PictureUnreadableError, TasksFileError
from heatbox.pictures.images import Limits, read_picture
from heatbox.pictures.sources import Source, find_pictures

NAMES = (
    "a.jpg",
    "b.PNG",
    "sub/c.webp",
    "sub/deep/d.tiff",
    "sub/[1].gif",
    ".hidden.jpg",
    ".git/e.jpg",
    "notes.txt",
    "f.dat",
)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder `photos` with pictures at several depths, in the current folder."""
    formats = {".jpg": "JPEG", ".webp": "WEBP", ".tiff": "TIFF", ".gif": "GIF"}
    for name in NAMES:
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file, formats.get(file.suffix, "PNG"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def names(sources: list[Source]) -> list[str]:
    return [source.name.removeprefix("photos/") for source in sources]


def write_tasks(folder, content, name="tasks.json") -> str:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(file)


def only(sources: list[Source]) -> Source:
    (source,) = sources
    return source


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["photos"], ["a.jpg", "b.PNG", "sub/[1].gif", "sub/c.webp", "sub/deep/d.tiff"]),
        (["photos/sub/"], ["sub/[1].gif", "sub/c.webp", "sub/deep/d.tiff"]),
        (["photos/b.PNG", "photos/a.jpg"], ["b.PNG", "a.jpg"]),
        (["photos/a.jpg", "photos/../photos/a.jpg", "photos/sub/../a.jpg"], ["a.jpg"]),
        (["photos/a.jpg", "photos"], ["a.jpg", "b.PNG", "sub/[1].gif", "sub/c.webp", "sub/deep/d.tiff"]),
        (["photos/*.jpg"], ["a.jpg"]),
        (["photos/?.*"], ["a.jpg", "b.PNG"]),
        (["photos/*.dat"], ["f.dat"]),
        (["photos/*"], ["a.jpg", "b.PNG", "sub/[1].gif", "sub/c.webp", "sub/deep/d.tiff"]),
        (["photos/**/*.tiff"], ["sub/deep/d.tiff"]),
        (["photos/**"], ["a.jpg", "b.PNG", "sub/[1].gif", "sub/c.webp", "sub/deep/d.tiff"]),
        (["photos/sub/[1].gif"], ["sub/[1].gif"]),
        (["photos/f.dat"], ["f.dat"]),
        (["photos/.hidden.jpg"], [".hidden.jpg"]),
        (["photos/.git"], [".git/e.jpg"]),
        ([], []),
    ],
)
@pytest.mark.usefixtures("photos")
def test_paths_name_these_pictures(paths, found):
    sources = find_pictures(paths)
    assert names(sources) == found
    assert [source.error for source in sources] == [None] * len(found)
    assert all(read_picture(source.path, Limits()).width == 8 for source in sources)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("photos/gone.jpg", "Nothing is named 'gone.jpg'"),
        ("gone", "Nothing is named 'gone'"),
        ("gone.json", "Nothing is named 'gone.json'"),
        ("photos/*.bmp", "No picture matches"),
        ("photos/no*", "No picture matches"),
        ("empty", "'empty' has no picture"),
        ("nul\0", "Nothing is named"),
        ("x" * 5000, "Nothing is named"),
    ],
)
def test_a_path_that_names_nothing_is_one_source_with_an_error(photos, path, words):
    (photos.parent / "empty").mkdir()
    bad, good = find_pictures([path, "photos/a.jpg"])
    assert isinstance(bad.error, PictureNotFoundError)
    assert words in bad.error.sentence
    assert bad.path is None
    assert good == Source("photos/a.jpg", good.path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_costs_only_itself(photos):
    (photos / "sub").chmod(0)
    try:
        sources = find_pictures(["photos"])
    finally:
        (photos / "sub").chmod(0o755)
    assert names(sources) == ["a.jpg", "b.PNG", "sub"]
    assert isinstance(sources[-1].error, PictureUnreadableError)


def test_links_to_folders_are_not_followed_in_circles(photos):
    (photos / "sub" / "up").symlink_to(photos)
    assert len(find_pictures(["photos"])) == 5


def test_a_link_to_a_picture_already_named_is_left_out(photos):
    (photos / "z.jpg").symlink_to("a.jpg")
    assert names(find_pictures(["photos/a.jpg", "photos/z.jpg"])) == ["a.jpg"]


def test_a_file_name_that_is_no_unicode_can_be_printed_and_read(photos):
    (photos / "a.jpg").rename(photos / "\udcff.jpg")
    source = only(find_pictures(["photos/*.jpg"]))
    assert source.name == "photos/?.jpg"
    assert read_picture(source.path, Limits()).width == 8


@pytest.mark.parametrize(
    "address",
    [
        "photos/a.jpg",
        " ./photos/../photos/a.jpg ",
        "photos/%61.jpg",
        "{photos}/a.jpg",
        "file://{photos}/a.jpg",
        "/data/local-files/?d=a.jpg",
        "http://studio.example/data/local-files/?d=a.jpg",
    ],
)
def test_a_task_names_its_picture(photos, address):
    task = {"id": 12, "data": {"image": address.format(photos=photos)}}
    source = only(find_pictures([write_tasks(photos.parent, [task])], document_roots=[photos]))
    assert source.path.samefile(photos / "a.jpg")
    assert source.task == task
    assert source.name == "tasks.json#12"


def test_relative_addresses_start_at_the_tasks_file_and_not_at_the_current_folder(photos):
    file = write_tasks(photos / "sub", [{"data": {"image": "c.webp"}}])
    assert only(find_pictures([file])).path == photos / "sub" / "c.webp"


@pytest.mark.parametrize(
    ("content", "task"),
    [
        ({"data": {"image": "photos/a.jpg"}}, {"data": {"image": "photos/a.jpg"}}),
        ({"image": "photos/a.jpg"}, {"data": {"image": "photos/a.jpg"}}),
        ([{"image": "photos/a.jpg", "n": 1}], {"data": {"image": "photos/a.jpg", "n": 1}}),
        (
            [
                {
                    "id": 3,
                    "data": {"image": "photos/a.jpg"},
                    "annotations": [{"result": []}],
                    "predictions": [5],
                }
            ],
            {"id": 3, "data": {"image": "photos/a.jpg"}, "annotations": [{"result": []}], "predictions": [5]},
        ),
    ],
    ids=["one task", "bare data", "list of bare data", "export"],
)
def test_a_tasks_file_may_have_each_shape_that_label_studio_imports(photos, content, task):
    source = only(find_pictures([write_tasks(photos.parent, content)]))
    assert source.task == task
    assert source.path.samefile(photos / "a.jpg")


def test_a_tasks_file_may_begin_with_a_byte_order_mark(photos):
    file = write_tasks(photos.parent, "\ufeff" + json.dumps([{"image": "photos/a.jpg"}]))
    assert only(find_pictures([file])).error is None


@pytest.mark.parametrize(
    ("data", "key", "name"),
    [
        ({"title": "A cat", "photo": "photos/a.jpg", "mask": "photos/b.PNG"}, None, "a.jpg"),
        ({"photo": "photos/a.jpg", "mask": "photos/b.PNG"}, "mask", "b.PNG"),
        ({"page": "https://example.org/", "photo": "photos/a.jpg"}, None, "a.jpg"),
        ({"odd": "photos/f.dat"}, "odd", "f.dat"),
        ({"n": 7, "list": ["x.jpg"], "photo": "/data/local-files/?d=f.dat"}, None, "f.dat"),
    ],
)
def test_the_address_is_under_the_key_given_or_the_first_that_looks_like_a_picture(photos, data, key, name):
    source = only(
        find_pictures([write_tasks(photos.parent, [{"data": data}])], data_key=key, document_roots=[photos])
    )
    assert source.error is None
    assert source.path.name == name


@pytest.mark.parametrize(
    ("task", "key", "error", "words"),
    [
        (7, None, TasksFileError, "Task 1 of 'tasks.json' is a number, not an object"),
        (["photos/a.jpg"], None, TasksFileError, "is a list"),
        (None, None, TasksFileError, "is null"),
        ({"id": 5, "data": {}}, None, TasksFileError, r"tasks.json#5: no value looks like .* \(keys: none\)"),
        ({"data": {"text": "hello"}}, None, TasksFileError, r"keys: 'text'"),
        ({"data": {"image": 7}}, "image", TasksFileError, r"data\['image'\] is not an address"),
        ({"data": {"image": "  "}}, "image", TasksFileError, "is not an address"),
        ({"data": {"image": "photos/a.jpg"}}, "photo", TasksFileError, r"data\['photo'\]"),
        ({"data": {"image": "photos/gone.jpg"}}, None, PictureNotFoundError, "no file 'gone.jpg'"),
        ({"data": {"image": "nul\0.jpg"}}, None, PictureNotFoundError, "There is no file"),
        ({"data": {"image": "\ud800.jpg"}}, None, PictureNotFoundError, "There is no file"),
        ({"data": {"image": "file:///gone/a.jpg"}}, None, PictureNotFoundError, "no file 'a.jpg'"),
        ({"data": {"image": "https://example.org/a.jpg?t=1"}}, None, AddressRefusedError, "https"),
        ({"data": {"image": "data:image/png;base64,AAAA"}}, None, AddressRefusedError, "data address"),
        (
            {"data": {"image": "/data/local-files/?d=photos/a.jpg"}},
            None,
            AddressRefusedError,
            "allowed folder",
        ),
    ],
)
def test_a_bad_task_costs_only_itself(photos, task, key, error, words):
    good = {"data": {key or "image": "photos/a.jpg"}}
    sources = find_pictures([write_tasks(photos.parent, [task, good, good])], data_key=key)
    assert [source.error is None for source in sources] == [False, True, True]
    assert sources[0].path is None
    with pytest.raises(error, match=words):
        raise sources[0].error


def test_two_tasks_with_the_same_picture_stay_two(photos):
    task = {"data": {"image": "photos/a.jpg"}}
    assert len(find_pictures([write_tasks(photos.parent, [task, task]), "photos/a.jpg"])) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"image": "a.jpg"},\n  {"image" "b.jpg"}]', "line 2, column 12"),
        ("", "line 1, column 1"),
        ("7", "but a number at its top"),
        ('"a.jpg"', "but a text at its top"),
        ('{"images": [], "categories": []}', "but an object at its top"),
        ("[]", "holds no task"),
        ("[" * 100_000, "cannot be read"),
        ("[" + "9" * 5000 + "]", "cannot be read"),
    ],
)
def test_a_file_that_is_no_tasks_file_stops_everything(tmp_path, content, words):
    with pytest.raises(TasksFileError, match=words):
        find_pictures([write_tasks(tmp_path, content)])


def test_a_tasks_file_that_is_no_text_is_told_with_the_byte(tmp_path):
    (tmp_path / "tasks.json").write_bytes(b'["\xff\xfe"]')
    with pytest.raises(TasksFileError, match="not UTF-8 text: byte 2"):
        find_pictures([str(tmp_path / "tasks.json")])


def test_json_files_in_a_folder_are_no_tasks_files_but_a_pattern_names_them(photos):
    write_tasks(photos, [{"image": "a.jpg"}])
    assert len(find_pictures(["photos"])) == 5
    assert names(find_pictures(["photos/*.json"])) == ["tasks.json#1"]
