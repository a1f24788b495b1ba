"""Pictures in: what is read, how it becomes upright 8-bit RGB, what is refused and in which words."""

import contextlib
import io
import os
import random
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from heatbox.boxes import Box
from heatbox.errors import (
    PictureError,
    PictureFormatError,
    PictureNotFoundError,
    PictureTooLargeError,
    PictureUnreadableError,
)
from heatbox.pictures.images import Limits, Picture, read_picture, read_picture_bytes
from heatbox.settings import Settings, read_settings

LIMITS = Limits()
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)

# How an upright picture is stored under each orientation: the inverse of what a viewer has to do.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def stored(upright: Image.Image, orientation: int, kind: str, **options: object) -> bytes:
    method = STORED[orientation]
    image = upright if method is None else upright.transpose(method)
    return encoded(image, kind, exif=exif(orientation), **options)


def colour(picture: Picture, x: int = 0, y: int = 0) -> tuple[int, ...]:
    return tuple(int(value) for value in picture.pixels[y, x])


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def red_part(pixels: np.ndarray) -> tuple[float, float, float, float]:
    """Return the box (xyxy, pixels) of what is red on blue."""
    mask = pixels[..., 0].astype(int) - pixels[..., 2] > 0
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@st.composite
def pictures_with_a_box(draw):
    """An upright blue picture of 40 to 300 pixels a side with one red box of at least 16 pixels a side."""
    width, height = draw(st.integers(40, 300)), draw(st.integers(40, 300))
    x1, y1 = draw(st.integers(0, width - 16)), draw(st.integers(0, height - 16))
    box = (x1, y1, draw(st.integers(x1 + 16, width)), draw(st.integers(y1 + 16, height)))
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, box)
    return image, box


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@settings(max_examples=20)
@given(drawn=pictures_with_a_box())
def test_a_box_reads_back_at_its_upright_place_from_every_orientation(drawn, orientation, kind):
    image, box = drawn
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read_picture_bytes(stored(image, orientation, kind, **options), LIMITS)
    assert (picture.width, picture.height) == image.size
    assert red_part(picture.pixels) == box


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("at_least", [None, 20, 64, 1000])
@settings(max_examples=20)
@given(drawn=pictures_with_a_box())
def test_a_box_reads_back_from_a_reduced_jpeg_in_every_orientation(drawn, orientation, at_least):
    image, box = drawn
    content = stored(image, orientation, "JPEG", quality=95, subsampling=0)
    picture = read_picture_bytes(content, LIMITS, at_least=at_least)
    height, width = picture.pixels.shape[:2]
    assert (picture.width, picture.height) == image.size
    assert min(width, height) >= min(at_least or min(image.size), *image.size)
    scale = np.array([picture.width / width, picture.height / height] * 2)
    assert np.abs(np.array(red_part(picture.pixels)) * scale - box).max() <= 1.5 * scale.max()


@st.composite
def boxes_in_pictures(draw):
    """A picture's width and height up to 65,500 pixels and a box in it of at least half a pixel each way."""
    sides = draw(st.integers(1, 65_500)), draw(st.integers(1, 65_500))
    near = [draw(st.floats(0, side - 0.5)) for side in sides]
    far = [draw(st.floats(start + 0.5, side)) for start, side in zip(near, sides, strict=True)]
    return Box(near[0], near[1], far[0], far[1]), *sides


@given(boxes_in_pictures())
def test_percent_and_back_is_the_same_box_within_a_hundredth_of_a_pixel(drawn):
    box, width, height = drawn
    back = Box.from_percent(box.as_percent(width, height), width, height)
    assert back.as_xyxy() == pytest.approx(box.as_xyxy(), abs=0.01)


@given(boxes_in_pictures())
def test_percent_never_leaves_the_picture(drawn):
    box, width, height = drawn
    value = box.as_percent(width, height)
    assert all(0 <= side <= 100 for side in value.values())
    assert value["x"] + value["width"] <= 100
    assert value["y"] + value["height"] <= 100


@pytest.mark.parametrize(
    ("at_least", "expected"), [(None, (900, 1200)), (1000, (900, 1200)), (450, (450, 600)), (449, (450, 600)),
                               (225, (225, 300)), (224, (225, 300)), (100, (113, 150)), (1, (113, 150))]
)  # fmt: skip
def test_a_jpeg_is_reduced_until_its_shorter_side_is_just_long_enough(at_least, expected):
    content = encoded(Image.new("RGB", (1200, 900)), "JPEG")
    picture = read_picture_bytes(content, LIMITS, at_least=at_least)
    assert picture.pixels.shape[:2] == expected
    assert (picture.width, picture.height) == (1200, 900)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_other_formats_are_read_in_full_when_a_small_side_is_enough(kind):
    content = encoded(Image.new("RGB", (120, 90), WHITE), kind)
    picture = read_picture_bytes(content, LIMITS, at_least=10)
    assert picture.pixels.shape == (90, 120, 3)
    assert colour(picture) == WHITE


def test_pixels_are_contiguous_writable_bytes(tmp_path):
    file = tmp_path / "photo.jpg"
    stored(Image.new("RGB", (30, 20)), 6, "JPEG")
    file.write_bytes(stored(Image.new("RGB", (30, 20)), 6, "JPEG"))
    pixels = read_picture(file, LIMITS).pixels
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


GREY16 = Image.fromarray(np.array([[0, 0x80FF, 0xFFFF]], np.uint16))
FLOAT = Image.fromarray(np.array([[-1.0, 0.0, 1.0, np.nan]], np.float32))
PALETTE = Image.new("RGB", (4, 4), GREEN).quantize(4)


@pytest.mark.parametrize(
    ("image", "kind", "options", "expected"),
    [
        (Image.new("L", (4, 4), 77), "PNG", {}, (77, 77, 77)),
        (Image.new("L", (4, 4), 77), "JPEG", {"quality": 100}, (77, 77, 77)),
        (Image.new("1", (4, 4), 1), "PNG", {}, WHITE),
        (Image.new("1", (4, 4), 1), "TIFF", {"compression": "group4"}, WHITE),
        (PALETTE, "PNG", {}, GREEN),
        (PALETTE, "GIF", {}, GREEN),
        (PALETTE, "PNG", {"transparency": 0}, WHITE),
        (PALETTE, "PNG", {"transparency": b"\x80"}, (127, 255, 127)),
        (PALETTE, "GIF", {"transparency": 0}, WHITE),
        (Image.new("RGB", (4, 4), RED), "PNG", {"transparency": RED}, WHITE),
        (Image.new("L", (4, 4), 77), "PNG", {"transparency": 77}, WHITE),
        (Image.new("RGBA", (4, 4), (*RED, 0)), "PNG", {}, WHITE),
        (Image.new("RGBA", (4, 4), (*RED, 255)), "PNG", {}, RED),
        (Image.new("RGBA", (4, 4), (*BLACK, 51)), "WEBP", {"lossless": True}, (204, 204, 204)),
        (Image.new("RGBA", (4, 4), (*RED, 0)), "TIFF", {}, WHITE),
        (Image.new("LA", (4, 4), (0, 51)), "PNG", {}, (204, 204, 204)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", {"quality": 100}, (254, 0, 0)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF", {}, RED),
        (Image.new("YCbCr", (4, 4), (255, 128, 128)), "TIFF", {}, WHITE),
        (Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF", {}, WHITE),
        (Image.new("I", (4, 4), 5), "TIFF", {}, BLACK),
    ],
)  # fmt: skip
def test_every_pixel_type_becomes_the_colour_that_a_viewer_shows(image, kind, options, expected):
    picture = read_picture_bytes(encoded(image, kind, **options), LIMITS)
    assert colour(picture) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (GREY16, "PNG", [0, 0x80, 0xFF]),
        (GREY16, "TIFF", [0, 0x80, 0xFF]),
        (FLOAT, "TIFF", [0, 128, 255, 0]),
        (Image.fromarray(np.array([[-70_000, 0, 70_000]], np.int32)), "TIFF", [0, 128, 255]),
    ],
)
def test_deep_greyscale_is_scaled_and_not_clipped(image, kind, expected):
    picture = read_picture_bytes(encoded(image, kind), LIMITS)
    assert picture.pixels[0, :, 0].tolist() == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.5])
def test_a_float_picture_without_any_contrast_is_black(value):
    content = encoded(Image.fromarray(np.full((2, 2), value, np.float32)), "TIFF")
    assert not read_picture_bytes(content, LIMITS).pixels.any()


def test_a_png_of_16_bits_a_channel_keeps_its_high_bytes():
    rows = b"\0" + struct.pack(">3H", 0xFF00, 0x8000, 0x0000)
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    )
    assert colour(read_picture_bytes(content, LIMITS)) == (255, 128, 0)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_the_first_frame_stands_for_several(kind):
    frames = [Image.new("RGB", (16, 16), shade) for shade in (GREEN, RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert colour(read_picture_bytes(content, LIMITS, at_least=4)) == pytest.approx(GREEN, abs=1)


def tiff_of_floats_in_colour() -> bytes:
    """A TIFF of one pixel with three channels of 32-bit float, which Pillow does not read."""
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 32), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
            (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 12), (339, 3, 1, 3)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 20) + bytes(12) + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tiff_of_floats_in_colour(), "TIFF whose pixel type"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"\0\0\0\x1cftypavif" + bytes(40), "AVIF"),
        (b"%PDF-1.7\n", "PDF"),
        (b"8BPS\0\1" + bytes(40), "Photoshop"),
    ],
)
def test_a_picture_of_an_unsupported_kind_is_named(content, words):
    with pytest.raises(PictureFormatError, match=words) as caught:
        read_picture_bytes(content, LIMITS)
    assert caught.value.remedy


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
JPEG, PNG = encoded(PHOTO, "JPEG"), encoded(PHOTO, "PNG")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>Please log in</body></html>", "not a picture"),
        (bytes(1000), "not a picture"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:30], "not a picture|truncated|damaged"),
        (PNG[: len(PNG) // 2], "truncated|damaged"),
        (PNG[:60] + bytes(40) + PNG[100:], "broken PNG|damaged"),
        (encoded(PHOTO, "GIF")[:800], "truncated|damaged"),
        (encoded(PHOTO, "BMP")[:800], "truncated|damaged"),
        (encoded(PHOTO, "WEBP")[:800], "damaged|not a picture"),
        (encoded(PHOTO, "TIFF", compression="tiff_lzw")[:-700], "damaged"),
    ],
    ids=["empty", "html", "zeros", "jpeg", "jpeg-header", "png", "png-crc", "gif", "bmp", "webp", "tiff"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_content_is_unreadable(content, words):
    with pytest.raises(PictureError, match=words):
        read_picture_bytes(content, LIMITS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_damage_never_ends_in_anything_but_a_picture_or_a_picture_error(kind):
    dice = random.Random(kind)  # noqa: S311 - the damage has to be the same in every run
    content = stored(PHOTO, 6, kind) if kind not in {"BMP", "GIF"} else encoded(PHOTO, kind)
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(dice.randint(1, 6)):
            damaged[int(len(damaged) * dice.random() ** 3)] = dice.randrange(256)
        with contextlib.suppress(PictureError):
            picture = read_picture_bytes(bytes(damaged), Limits(max_pixels=2**20), at_least=16)
            assert picture.width * picture.height <= 2**20


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nowhere.jpg", PictureNotFoundError),
        ("folder", PictureUnreadableError),
        ("pipe.jpg", PictureUnreadableError),
        ("photo.jpg/inside.jpg", PictureNotFoundError),
        ("dangling.jpg", PictureNotFoundError),
        ("nul\0.jpg", PictureNotFoundError),
        ("x" * 300, PictureUnreadableError),
    ],
)
def test_what_is_not_a_file_is_told_by_name_only(tmp_path, name, error):
    (tmp_path / "folder").mkdir()
    (tmp_path / "photo.jpg").write_bytes(JPEG)
    (tmp_path / "dangling.jpg").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(error) as caught:
        read_picture(tmp_path / name, LIMITS)
    assert repr(Path(name).name) in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("limits", "words", "setting"),
    [
        (Limits(max_bytes=100), r"'photo.png' has [\d,]+ bytes; the limit is 100", "HEATBOX_MAX_BYTES"),
        (Limits(max_pixels=4095), "64 x 64: 4,096 pixels, and the limit is 4,095", "HEATBOX_MAX_PIXELS"),
        (Limits(max_side=63), "64 pixels on its longer side, and the limit is 63", "HEATBOX_MAX_SIDE"),
    ],
)
def test_a_picture_over_a_limit_is_told_with_the_numbers_and_the_setting(tmp_path, limits, words, setting):
    file = tmp_path / "photo.png"
    file.write_bytes(PNG)
    with pytest.raises(PictureTooLargeError, match=words) as caught:
        read_picture(file, limits)
    assert setting in caught.value.remedy


def test_a_picture_at_every_limit_is_read():
    exact = Limits(max_bytes=len(PNG), max_pixels=64 * 64, max_side=64)
    assert read_picture_bytes(PNG, exact).width == 64


def test_limits_are_those_of_the_settings():
    assert Limits() == Limits.from_settings(Settings())
    changed = read_settings({"HEATBOX_MAX_PIXELS": "5", "HEATBOX_MAX_BYTES": "6", "HEATBOX_MAX_SIDE": "7"})
    assert Limits.from_settings(changed) == Limits(max_bytes=6, max_pixels=5, max_side=7)


def webp_header(width: int, height: int) -> bytes:
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_with_a_tile(side: int) -> bytes:
    """A TIFF of one pixel whose only tile is side x side pixels."""
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
            (322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, 8), (325, 4, 1, 12)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 20) + bytes(12) + struct.pack("<H", len(tags)) + entries + bytes(4)


BOMBS = {
    "png": png_header(20_000, 20_000),
    "webp": webp_header(20_000, 20_000),
    "tiff": tiff_with_a_tile(20_000),
    "gif": b"GIF89a"
    + struct.pack("<HHBBB", 20_000, 20_000, 0, 0, 0)
    + b","
    + bytes(4)
    + b"\x10\0\x10\0\0\x02\0;",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_that_announces_400_megapixels_is_refused_at_once(kind):
    start = time.perf_counter()
    with pytest.raises(PictureTooLargeError, match="20000 x 20000: 400,000,000 pixels"):
        read_picture_bytes(BOMBS[kind], LIMITS)
    assert time.perf_counter() - start < 0.5


READ_WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from heatbox.errors import PictureError
from heatbox.pictures.images import Limits, read_picture
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, used + 2**27))
for name in sys.argv[1:]:
    try:
        read_picture(Path(name), Limits())
    except PictureError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the size of the process from /proc")
def test_files_that_announce_400_megapixels_are_refused_without_the_memory_for_them(tmp_path):
    files = [tmp_path / f"bomb.{kind}" for kind in BOMBS]
    for file, content in zip(files, BOMBS.values(), strict=True):
        file.write_bytes(content)
    command = [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, *map(str, files)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert ["400,000,000 pixels" in line for line in told] == [True] * len(BOMBS)


def test_our_limit_replaces_the_one_of_pillow():
    content = encoded(Image.new("L", (13_500, 13_500)), "JPEG")  # 182 megapixels; Pillow alone refuses 179
    picture = read_picture_bytes(content, Limits(max_pixels=200_000_000), at_least=224)
    assert (picture.width, picture.height) == (13_500, 13_500)


def test_a_text_chunk_that_unpacks_to_far_more_is_refused():
    extra = PngImagePlugin.PngInfo()
    extra.add_text("Comment", "x" * (8 * 2**20), zip=True)
    with pytest.raises(PictureUnreadableError, match="too large"):
        read_picture_bytes(encoded(PHOTO, "PNG", pnginfo=extra), LIMITS)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tiff_tags_that_each_claim_the_whole_file_are_not_all_read():
    content = encoded(Image.new("L", (4, 4), 77), "TIFF")
    (count,) = struct.unpack_from("<H", content, 8)
    claims = b"".join(struct.pack("<HHII", 40_000 + number, 1, 2**24, 0) for number in range(20_000))
    directory = struct.pack("<H", count + 20_000) + content[10 : 10 + 12 * count] + claims + bytes(4)
    start = time.perf_counter()
    bomb = content[:4] + struct.pack("<I", 2**24) + content[8:].ljust(2**24 - 8, b"\0") + directory
    assert colour(read_picture_bytes(bomb, LIMITS)) == (77, 77, 77)
    assert time.perf_counter() - start < 5  # 20,000 copies of 16 MiB would take minutes, and 312 GiB


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(range(40)),
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\xff\xff\xff\x7f",
        b"nonsense",
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_exif_block_does_not_lose_the_picture(kind, block):
    content = encoded(PHOTO, kind, exif=block)
    if (
        kind == "JPEG"
    ):  # as cameras write it, without the JFIF block; Pillow then looks into the EXIF for a resolution
        content = content[:2] + content[20:]
    picture = read_picture_bytes(content, LIMITS)
    assert (picture.width, picture.height) == (64, 64)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation):
    content = encoded(Image.new("RGB", (30, 20)), "PNG", exif=exif(orientation))
    assert read_picture_bytes(content, LIMITS).pixels.shape == (20, 30, 3)


def test_an_orientation_in_xmp_alone_is_passed_over_as_browsers_do():
    extra = PngImagePlugin.PngInfo()
    extra.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="6"/>')
    content = encoded(Image.new("RGB", (30, 20)), "PNG", pnginfo=extra)
    assert read_picture_bytes(content, LIMITS).pixels.shape == (20, 30, 3)


def test_threads_read_the_same_pixels_as_one_alone():
    contents = [stored(PHOTO, orientation, "JPEG") for orientation in STORED]
    alone = [read_picture_bytes(content, LIMITS).pixels for content in contents]
    together: dict[int, np.ndarray] = {}

    def read(number: int) -> None:
        together[number] = read_picture_bytes(contents[number % 8], LIMITS).pixels

    threads = [threading.Thread(target=read, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(together[number], alone[number % 8]) for number in range(32))
