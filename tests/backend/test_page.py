"""The page is whole, self-contained, and shows every picture, label and failure without trusting any name."""

import base64
import hashlib
import re
import resource
import shutil
import subprocess
from contextlib import contextmanager
from html.parser import HTMLParser

import numpy as np
import pytest

from heatbox.annotation import Annotation, Region, Rejected, TargetEvidence
from heatbox.boxes import Box
from heatbox.errors import OutputError, PictureUnreadableError
from heatbox.page import PageEntry, PageFrame, PageWriter, Table, write_page

FRAME = PageFrame("heatbox-cam-net-0123456789", "CAM")
VOID = {"meta", "img", "input"}
NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


class Page(HTMLParser):
    """Reads a page strictly: every element that opens must close, in order."""

    def __init__(self, path):
        super().__init__()
        self.text, self.elements, self.open = path.read_text("utf-8"), [], []
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag, **wanted):
        return [attrs for name, attrs in self.elements if name == tag and wanted.items() <= attrs.items()]


def annotated(name="a.jpg", labels=("cat",), truth=(), pixels=NOISE, *, kept=True):
    heat = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    evidence = tuple(TargetEvidence(label, "tabby", 0.987, heat, heat > 0.5) for label in labels)
    regions = tuple(Region(f"r{label}", label, "tabby", Box(8, 6, 48, 42), 0.755) for label in labels)
    return PageEntry(name, pixels, Annotation(80, 60, regions, evidence if kept else ()), truth=truth)


def failed(name="b.jpg"):
    return PageEntry(name, None, None, PictureUnreadableError("It is cut off.", "Copy it again."))


def written(tmp_path, *entries, frame=FRAME, **options):
    write_page(tmp_path / "page.html", entries, frame, **options)
    return Page(tmp_path / "page.html")


def everything():
    nothing = PageEntry("none.jpg", NOISE, Annotation(80, 60, ()))
    truth = (("cat", Box(10, 10, 40, 40)), ("dog", Box(1, 1, 9, 9)))
    return annotated(labels=("cat", "cow"), truth=truth), annotated(kept=False), nothing, failed()


def test_every_element_is_closed(tmp_path):
    table = Table("Numbers", ("label", "IoU"), (("cat", 0.5),))
    page = written(tmp_path, *everything(), frame=PageFrame("t", "s", (table,), ("A note.",)), max_entries=2)
    assert page.open == []


def test_every_picture_is_inside_the_page_and_nothing_else_is_asked_for(tmp_path):
    page = written(tmp_path, *everything())
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert {attrs["href"] for _, attrs in page.elements if "href" in attrs} == {"#pictures", "#failed"}
    assert not re.search(r"https?://|url\(|@import|<link|<iframe", page.text)


def test_the_policy_forbids_requests_and_allows_only_our_script(tmp_path):
    page = written(tmp_path, annotated())
    script = page.text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy["content"]


@pytest.mark.parametrize(("labels", "images"), [(("cat",), 5), (("cat", "dog"), 10), ((), 1)])
def test_each_label_has_five_panels_and_a_picture_without_labels_has_one(tmp_path, labels, images):
    page = written(tmp_path, annotated(labels=labels))
    assert len(page.all("img")) == images
    assert all("a.jpg" in image["alt"] and image["loading"] == "lazy" for image in page.all("img"))


def test_panels_without_evidence_say_so(tmp_path):
    page = written(tmp_path, annotated(kept=False))
    assert [step for step in ("heatmap", "mask", "contour") if f">no {step}<" in page.text] == [
        "heatmap",
        "mask",
        "contour",
    ]
    assert len(page.all("img")) == 2


def test_each_rejected_box_has_its_line_and_its_label_is_not_trusted(tmp_path):
    region = Region("r", "<b>cat", "tabby", Box(8, 6, 48, 42), 0.755)
    rejected = (Rejected(region, "too thin"), Rejected(region, "no cat"))
    page = written(tmp_path, PageEntry("a.jpg", NOISE, Annotation(80, 60, (), rejected=rejected)))
    for reason in ("too thin", "no cat"):
        assert f"rejected: <bdi>&lt;b&gt;cat 0.76 from (8, 6) to (48, 42): {reason}</bdi>" in page.text
    assert page.open == []


def test_title_scores_and_classes_are_shown(tmp_path):
    page = written(tmp_path, annotated(truth=(("cat", Box(8, 6, 48, 24)),)))
    assert "<title>heatbox-cam-net-0123456789 · CAM</title>" in page.text
    for shown in ("probability <b>0.99</b>", "box <b>0.76</b>", "IoU <b>0.50</b>", "class <bdi>tabby</bdi>"):
        assert shown in page.text
    assert "<bdi>cat</bdi> 0.76</span>" in page.text


@pytest.mark.parametrize(
    ("x1", "y1", "place"),
    [
        (8, 30, "left: 10.00%; top: 50.00%"),
        (48, 30, "right: 20.00%; top: 50.00%"),
        (8, 0, "left: 10.00%; top: 0.00%"),
    ],
)
def test_the_tag_of_a_box_stands_at_its_corner(tmp_path, x1, y1, place):
    box = Region("r", "cat", "cat", Box(x1, y1, x1 + 16, y1 + 20), 0.5)
    page = written(tmp_path, PageEntry("a", NOISE, Annotation(80, 60, (box,))))
    (tag,) = page.all("span", style=place)
    assert tag["class"] == ("tag inside" if y1 == 0 else "tag")


def test_a_true_label_that_was_not_found_is_called_missed(tmp_path):
    page = written(tmp_path, annotated(labels=(), truth=(("dog", Box(1, 1, 9, 9)),)))
    assert ">missed<" in page.text
    assert len(page.all("section", **{"data-label": "dog"})) == 1


def test_a_picture_without_boxes_says_so(tmp_path):
    page = written(tmp_path, PageEntry("none.jpg", NOISE, Annotation(80, 60, ())))
    assert "no box in this picture" in page.text
    assert "<dt>without box</dt><dd>1</dd>" in page.text


def test_a_failed_picture_is_listed_with_code_sentence_and_remedy(tmp_path):
    page = written(tmp_path, annotated(), failed("dir/b.jpg"))
    section = page.text.split('id="failed"')[1]
    for part in ("dir/b.jpg", "picture-unreadable", "It is cut off.", "Copy it again."):
        assert part in section
    assert "</a></dt><dd>1</dd>" in page.text


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;{{ 7*7 }}"


@pytest.mark.parametrize(
    "entry",
    [annotated(EVIL), annotated(labels=(EVIL,)), failed(EVIL), annotated(truth=((EVIL, Box(0, 0, 5, 5)),))],
    ids=["name", "label", "failed", "true label"],
)
def test_names_and_labels_are_text_never_markup(tmp_path, entry):
    page = written(tmp_path, entry)
    assert len(page.all("script")) == 1
    assert not [attrs for _, attrs in page.elements if "onerror" in attrs]
    assert "{{ 7*7 }}" in page.text


def test_frame_texts_are_text_never_markup(tmp_path):
    table = Table(EVIL, (EVIL,), ((EVIL,),))
    page = written(tmp_path, frame=PageFrame(EVIL, EVIL, (table,), (EVIL,)))
    assert len(page.all("script")) == 1
    assert page.all("img") == []


def test_a_file_name_that_is_not_unicode_is_shown_escaped(tmp_path):
    assert "caf\\udce9.jpg" in written(tmp_path, annotated("caf\udce9.jpg")).text


def test_pictures_past_the_limit_are_counted_and_the_page_says_so(tmp_path):
    page = written(tmp_path, *(annotated(f"{number}.jpg") for number in range(5)), max_entries=2)
    assert "Showing the first 2 of 5 pictures" in page.text
    assert (len(page.all("article")), len(page.all("img"))) == (2, 10)
    assert "<dt>pictures</dt><dd>5</dd>" in page.text
    assert "<dt>boxes</dt><dd>5</dd>" in page.text


def test_failures_past_the_limit_are_counted_and_the_page_says_so(tmp_path):
    page = written(tmp_path, *(failed(f"{number}.jpg") for number in range(5)), max_entries=2)
    assert "Listing the first 2 of 5 failed pictures" in page.text
    assert len(page.all("li")) == 2


def test_a_page_below_the_limit_does_not_speak_of_it(tmp_path):
    assert "Showing the first" not in written(tmp_path, annotated(), max_entries=1).text


def test_a_full_page_takes_pictures_without_pixels(tmp_path):
    with PageWriter(tmp_path / "page.html", max_entries=1) as page:
        assert not page.full
        page.add(annotated())
        assert page.full
        page.add(annotated(pixels=None))
        page.write(FRAME)
    assert "Showing the first 1 of 2 pictures" in (tmp_path / "page.html").read_text("utf-8")


def test_a_page_of_nothing_says_so(tmp_path):
    assert "No picture to show." in written(tmp_path).text


def test_the_filter_offers_each_label_with_its_pictures(tmp_path):
    page = written(tmp_path, annotated(labels=("cat", "dog")), annotated(labels=("cat",)))
    assert [option["value"] for option in page.all("option")] == ["", "cat", "dog"]
    assert "cat (2)" in page.text


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (0.5, '<td class="number">0.500</td>'),
        (3, '<td class="number">3</td>'),
        (None, '<td class="number">-</td>'),
        ("cat", "<td>cat</td>"),
    ],
)
def test_a_table_shows_numbers_as_numbers(tmp_path, value, cell):
    assert cell in written(tmp_path, frame=PageFrame("t", tables=(Table("T", ("c",), ((value,),)),))).text


def test_missing_folders_are_made(tmp_path):
    write_page(tmp_path / "new" / "deep" / "page.html", [annotated()], FRAME)
    assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["page.html"]


def breaks(entry):
    yield entry
    raise KeyboardInterrupt


def test_a_run_that_breaks_leaves_the_older_page_and_no_rubbish(tmp_path):
    (tmp_path / "page.html").write_text("older", "utf-8")
    with pytest.raises(KeyboardInterrupt):
        write_page(tmp_path / "page.html", breaks(annotated()), FRAME)
    assert [(path.name, path.read_text("utf-8")) for path in tmp_path.iterdir()] == [("page.html", "older")]


@pytest.mark.parametrize("where", ["folder", "file/page.html"])
def test_a_place_that_cannot_be_written_is_refused_before_any_picture(tmp_path, where):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError, match="cannot be written: ") as caught, PageWriter(tmp_path / where):
        pass
    assert "choose another file" in caught.value.remedy


@contextmanager
def full_disk():
    """Let no file of this process grow past 1 kB; the test's own report must be written outside."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**10, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("pictures", [0, 3], ids=["while the page is written", "while pictures are taken"])
def test_a_disk_that_fills_up_leaves_the_older_page_and_no_rubbish(tmp_path, pictures):
    (tmp_path / "page.html").write_text("older", "utf-8")
    with pytest.raises(OutputError, match="cannot be written"), full_disk():
        write_page(tmp_path / "page.html", [annotated()] * pictures, FRAME)
    assert [(path.name, path.read_text("utf-8")) for path in tmp_path.iterdir()] == [("page.html", "older")]


def test_a_full_disk_does_not_hide_why_a_run_broke(tmp_path):
    grey = PageEntry("a.jpg", np.zeros((60, 80, 3), np.uint8), Annotation(80, 60, ()))
    with pytest.raises(KeyboardInterrupt), full_disk():
        write_page(tmp_path / "page.html", breaks(grey), FRAME)


@pytest.mark.parametrize("error", [None, PictureUnreadableError("It is cut off.", "Copy it again.")])
def test_an_entry_is_either_annotated_or_failed(error):
    with pytest.raises(ValueError, match=r"either .* or .*'a\.jpg'"):
        PageEntry("a.jpg", NOISE, Annotation(80, 60, ()) if error else None, error)


def test_a_browser_runs_the_script_under_the_policy(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None or browser.startswith("/snap/"):
        pytest.skip("no chromium or google-chrome on PATH, or one from snap, which reads no temporary files")
    written(tmp_path, annotated("a.jpg"), annotated("b.jpg"))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
    ]
    address = (tmp_path / "page.html").as_uri()
    command = [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", address]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert ">2 of 2 shown</output>" in shown
