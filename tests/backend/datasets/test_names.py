"""Names: safe on every file system, unique where case or composition is not told apart, and stable."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatbox.datasets.names import Names, called, folder_names, stem_of

SHA = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
NASTY = (
    "a/b",
    "..",
    "con",
    "Con",
    "x" * 400,
    "cat",
    "Cat",
    "CAT",
    "",
    " cat",
    "cat.",
    "ä",
    "a\u0308",
    "a\nb",
    "猫",
    "a_b",
)


@pytest.mark.parametrize(
    ("address", "stem"),
    [
        ("/photos/cat 1.v2.jpg", "cat_1_v2"),
        ("/data/local-files/?d=shelf/Katze%20%C3%A4.png", "Katze_ä"),
        ("http://studio.example/data/local-files/?d=a/b.jpg", "b"),
        ("https://pictures.example/a/b%2Fc.jpg?token=secret", "c"),
        ("s3://bucket/folder/key.jpg", "key"),
        ("data:image/png;base64,iVBOR", "picture"),
        ("http://[broken", "picture"),
        ("/photos/-rf.jpg", "rf"),
        ("/photos/__bad__.jpg", "bad"),
        ("/photos/..", "picture"),
        ("/photos/写真.jpg", "写真"),
    ],
)
def test_a_stem_has_letters_digits_underscores_and_dashes(address, stem):
    assert stem_of(address) == stem


def test_what_a_picture_without_a_name_is_called_has_no_secret():
    assert called("https://pictures.example/cat.JPG?token=secret") == "cat.jpg"
    assert called("https://pictures.example/show?id=secret") == "show"


@pytest.mark.parametrize(
    "other", ["b/a.jpg", "b/a.png", "b/A.jpg", "b/\N{FULLWIDTH LATIN SMALL LETTER A}.jpg"]
)
def test_pictures_whose_names_are_one_to_some_file_system_all_get_a_part_of_their_hash(other):
    names = Names(["x/a.jpg", other, "x/b.jpg"])
    assert names.name("x/a.jpg", SHA, ".jpg") == "a-01234567.jpg"
    assert names.name(other, OTHER, ".jpg").endswith("-fedcba98.jpg")
    assert names.name("x/b.jpg", SHA, ".jpg") == "b.jpg"


def test_one_address_that_leads_to_two_contents_gets_two_names():
    names = Names(["x/a.jpg"])
    assert names.name("x/a.jpg", SHA, ".jpg") == "a.jpg"
    assert names.name("x/a.jpg", OTHER, ".png") == "a-fedcba98.png"
    assert names.name("x/a.jpg", OTHER[:8] + SHA[8:], ".png") == "a-fedcba988.png"


def test_a_name_that_windows_keeps_for_itself_gets_a_part_of_its_hash():
    assert Names(["x/con.jpg"]).name("x/con.jpg", SHA, ".jpg") == "con-01234567.jpg"


def test_plain_labels_are_their_own_folders():
    assert folder_names(["cat", "hot dog", "Größe M", "猫"]) == {
        one: one for one in ("cat", "hot dog", "Größe M", "猫")
    }


def is_safe(folder):
    return (
        0 < len(folder.encode()) < 200
        and not set(folder) & set('/\\:*?"<>|\0\n')
        and folder.strip(" .") == folder
        and folder.casefold() not in {"con", "nul", "aux", "prn"}
    )


def test_nasty_labels_get_safe_folders_that_no_other_has():
    folders = folder_names(NASTY)
    assert set(folders) == set(NASTY)
    assert all(map(is_safe, folders.values())), folders
    assert folders["cat"] == "cat"
    forms = {unicodedata.normalize("NFKC", folder).casefold() for folder in folders.values()}
    assert len(forms) == len(NASTY)


def test_a_label_keeps_its_folder_when_others_are_appended():
    assert list(folder_names(NASTY).items())[:8] == list(folder_names(NASTY[:8]).items())


@given(st.lists(st.text(max_size=30), unique=True, max_size=12))
def test_any_labels_get_safe_folders(labels):
    folders = folder_names(labels)
    assert all(map(is_safe, folders.values())), folders
    assert len({unicodedata.normalize("NFKC", one).casefold() for one in folders.values()}) == len(labels)


@given(st.text())
def test_any_address_has_a_safe_stem(address):
    stem = stem_of(address)
    assert stem
    assert not set(stem) & set('./\\:*?"<>|\0\n ')
    assert len(stem.encode()) <= 120
