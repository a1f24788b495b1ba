"""Exports: what the card says, what stays when the data grow, what is rejected, and that nothing half is ever seen."""

import contextlib
import json
import resource
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from heatbox.datasets.card import Target
from heatbox.datasets.examples import SPLITS
from heatbox.datasets.exporting import export
from heatbox.datasets.folder import new_folder
from heatbox.datasets.formats import ExportFormat
from heatbox.errors import DatasetError, OutputError
from heatbox.pictures.images import Limits

FORMATS = [one.value for one in ExportFormat]
DETECTION = ["coco", "yolo", "voc"]


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def card(folder):
    return json.loads((folder / "card.json").read_text(encoding="utf-8"))


def rejected(folder):
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


def places(folder):
    """Return the split of each picture of a jsonl export."""
    return {
        json.loads(line)["file_name"]: split
        for split in SPLITS
        for line in (folder / f"{split}.jsonl").read_text().splitlines()
    }


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_corrections_make_the_same_bytes(many, tmp_path, form):
    many.export(tmp_path / "one", form)
    many.corrected.reverse()
    many.export(tmp_path / "two", form)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_picture_stays_in_its_split_when_the_data_grow(photos, tmp_path):
    for number in range(20):
        photos.add(f"{number}.png")
    photos.export(tmp_path / "small")
    for number in range(20, 60):
        photos.add(f"{number}.png")
    photos.export(tmp_path / "large")
    small, large = places(tmp_path / "small"), places(tmp_path / "large")
    assert (len(small), len(large)) == (20, 60)
    assert small.items() <= large.items()


@pytest.mark.parametrize("form", FORMATS)
def test_upright_pictures_are_the_same_bytes_and_turned_ones_say_nothing_of_it(photos, tmp_path, form):
    plain, turned = photos.add("plain.jpg"), photos.add("turned.jpg", orientation=6)
    photos.export(tmp_path / "out", form)
    if form == "webdataset":
        for shard in (tmp_path / "out").glob("*.tar"):
            with tarfile.open(shard) as members:
                members.extractall(tmp_path / "out", filter="data")
    found = {path.name: path for path in (tmp_path / "out").rglob("*.jpg") if "crops" not in path.parts}
    assert found["plain.jpg"].read_bytes() == Path(plain.address).read_bytes()
    assert found["turned.jpg"].read_bytes() != Path(turned.address).read_bytes()
    with Image.open(found["turned.jpg"]) as image:
        assert (image.size, dict(image.getexif())) == ((64, 48), {})


def test_a_picture_that_only_xmp_turns_is_written_anew_because_some_readers_heed_it(photos, tmp_path):
    path = photos.save("xmp.jpg")
    with Image.open(path) as image:
        image.save(path, xmp=b'<x tiff:Orientation="6"/>')
    photos.say(path)
    (example,) = photos.collect()
    photos.export(tmp_path / "out")
    with Image.open(tmp_path / "out" / "images" / "xmp.jpg") as image:
        assert image.getexif().get(0x0112, 1) == 1
    assert not example.is_upright


def test_the_card_has_the_classes_in_the_order_of_the_label_config_and_the_counts(photos, tmp_path):
    photos.add("a.jpg", "cat")
    exported = photos.export(tmp_path / "out", labels=("dog", "cat"))
    (split,) = exported.counts.pictures
    found = card(tmp_path / "out")
    assert found["classes"] == ["dog", "cat"]
    assert found["class_sources"] == {"dog": "label-config", "cat": "label-config"}
    assert found["counts"][split] == {
        "pictures": 1,
        "classes": {"cat": {"pictures": 1, "boxes": 1}, "dog": {"pictures": 0, "boxes": 0}},
    }
    assert (found["format"], found["project"], found["rejected"]) == ("jsonl", 1, {})


def test_a_later_export_keeps_the_order_of_classes_and_appends_new_ones(photos, tmp_path):
    photos.add("a.jpg")
    photos.export(tmp_path / "out", labels=("dog", "cat"))
    photos.export(tmp_path / "out", "coco", labels=("bird", "cat"), replace=True)
    found = card(tmp_path / "out")
    assert found["classes"] == ["dog", "cat", "bird"]
    assert found["class_sources"] == {"dog": "former-card", "cat": "former-card", "bird": "label-config"}
    assert not (tmp_path / "out" / "train.jsonl").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out", "photos"] or len(
        list(tmp_path.iterdir())
    ) == 2


@pytest.mark.parametrize("form", DETECTION)
def test_where_nobody_looked_for_boxes_a_detector_learns_nothing(photos, tmp_path, form):
    photos.add("a.jpg")
    photos.add("b.jpg", boxes=None)
    exported = photos.export(tmp_path / "out", form)
    assert exported.reasons() == [("boxes-unknown", 1)]
    assert rejected(tmp_path / "out")[0]["name"] == "b.jpg"


@pytest.mark.parametrize("form", ["imagefolder", "webdataset", "jsonl"])
def test_where_nobody_looked_for_boxes_a_classifier_learns_all_the_same(photos, tmp_path, form):
    photos.add("b.jpg", boxes=None)
    assert photos.export(tmp_path / "out", form).counts.pictures.total() == 1


def test_pictures_of_two_labels_give_crops_and_no_whole_picture(photos, tmp_path):
    one = photos.add("a.jpg", labels=("cat", "dog"))
    exported = photos.export(tmp_path / "out", "imagefolder")
    crops = list((tmp_path / "out" / "crops").rglob("*.jpg"))
    assert [path.name for path in crops] == ["a.1.jpg"]
    assert list((tmp_path / "out").rglob("*.jpg")) == crops
    assert (exported.reasons(), exported.counts.boxes.total(), one.task) == ([("not-one-label", 1)], 1, 1)


def test_a_crop_of_a_png_is_a_png(photos, tmp_path):
    photos.add("a.png")
    photos.export(tmp_path / "out", "imagefolder")
    assert {path.suffix for path in (tmp_path / "out").rglob("a.*")} == {".png"}


def test_each_label_is_read_back_whatever_folder_it_has(photos, tmp_path):
    labels = ("a/b", "..", "con", "x" * 300, "cat", "Cat", "ä", "a\u0308")
    for number, label in enumerate(labels):
        photos.add(f"{number}.png", label)
    photos.export(tmp_path / "out", "imagefolder", labels=labels)
    by_folder = {folder: label for label, folder in card(tmp_path / "out")["folders"].items()}
    found = {
        path.stem: by_folder[path.parent.name]
        for split in SPLITS
        for path in (tmp_path / "out" / split).rglob("*.png")
    }
    assert found == {str(number): label for number, label in enumerate(labels)}


def test_a_picture_that_is_gone_when_it_is_written_loses_only_itself(photos, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        photos.add(name)
    items = list(photos.collect())
    items[0].path.write_bytes(b"another")
    exported = export(items, Target(tmp_path / "out", ExportFormat.YOLO, ("cat",)), Limits())
    assert exported.reasons() == [("picture-not-found", 1)]
    assert exported.counts.pictures.total() == 1


def test_nothing_to_export_is_an_error_and_leaves_what_is_there(photos, tmp_path):
    photos.add("a.jpg")
    photos.export(tmp_path / "out")
    before = files(tmp_path / "out")
    photos.corrected.clear()
    photos.say(photos.folder / "gone.jpg")
    with pytest.raises(DatasetError, match="None of the pictures"):
        photos.export(tmp_path / "out", replace=True)
    photos.corrected.clear()
    with pytest.raises(DatasetError, match="no corrections"):
        photos.export(tmp_path / "out", replace=True)
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("make", "replace", "reason"),
    [
        (lambda out: out.touch(), True, "it is a file"),
        (lambda out: (out / "other").mkdir(parents=True), True, "holds something"),
        (lambda out: (out.mkdir(), (out / "card.json").write_text("{}")), True, "holds something"),
    ],
    ids=["file", "folder", "foreign-card"],
)
def test_what_is_no_export_of_ours_is_never_touched(photos, tmp_path, make, replace, reason):
    photos.add("a.jpg")
    out = tmp_path / "out"
    make(out)
    with pytest.raises(OutputError, match=reason):
        photos.export(out, replace=replace)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]
    assert not (out / "train.jsonl").exists()


def test_a_former_export_goes_only_if_that_was_said_and_no_picture_is_fetched_before(photos, tmp_path):
    photos.add("a.jpg")
    photos.export(tmp_path / "out")
    items = photos.collect()
    with pytest.raises(OutputError, match="--replace"):
        export(items, Target(tmp_path / "out", ExportFormat.COCO, ("cat",), 1), Limits())
    assert next(items).name == "a.jpg"


def test_the_export_of_another_project_is_not_replaced(photos, tmp_path):
    photos.add("a.jpg")
    photos.export(tmp_path / "out")
    with pytest.raises(OutputError, match="project 1, not of 2"):
        photos.export(tmp_path / "out", project=2, replace=True)


def test_an_empty_folder_and_a_link_to_one_may_be_written(photos, tmp_path):
    photos.add("a.jpg")
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    photos.export(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "card.json").is_file()


def test_a_place_that_cannot_be_written_is_told(photos, tmp_path):
    photos.add("a.jpg")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        photos.export(tmp_path / "file" / "out")


@contextlib.contextmanager
def full_disk(size):
    """Let files of this process grow to so many bytes only, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_leaves_the_former_export_and_nothing_else(many, tmp_path, form):
    many.export(tmp_path / "out", form)
    before = files(tmp_path / "out")
    with pytest.raises(OutputError, match="cannot be written"), full_disk(300):
        many.export(tmp_path / "out", form, replace=True)
    assert files(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


KILLED = """
import os, signal, sys
from pathlib import Path
from heatbox.datasets.folder import new_folder
out = Path(sys.argv[1])
with new_folder(out, lambda _: True) as part:
    (part / "half").touch()
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
    Path.rename, rename = lambda self, to: (rename(self, to), os.kill(os.getpid(), signal.SIGKILL)), Path.rename
"""


def killed(out, when):
    answer = subprocess.run([sys.executable, "-c", KILLED, out, when], check=False)
    assert answer.returncode == -signal.SIGKILL


def test_what_a_killed_export_has_left_is_removed_by_the_next_one(photos, tmp_path):
    photos.add("a.jpg")
    killed(tmp_path / "out", "writing")
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")]
    photos.export(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_an_export_that_was_set_aside_when_its_replacement_was_killed_comes_back(photos, tmp_path):
    photos.add("a.jpg")
    photos.export(tmp_path / "out", labels=("dog", "cat"))
    killed(tmp_path / "out", "renaming")
    assert not (tmp_path / "out").exists()
    photos.export(tmp_path / "out", labels=("cat", "dog"), replace=True)
    assert card(tmp_path / "out")["classes"] == ["dog", "cat"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_two_exports_do_not_write_to_one_place_at_once(photos, tmp_path):
    photos.add("a.jpg")
    with new_folder(tmp_path / "out") as part:
        (part / "mine").touch()
        with pytest.raises(OutputError, match="another process writes it now"):
            photos.export(tmp_path / "out")
    assert files(tmp_path / "out") == {"mine": b""}
