"""Pictures of a dry run, counted by their parts: those that the training itself will read."""

import json

import pytest
from PIL import Image

from heatbox.errors import DatasetError
from heatbox.settings import Settings
from heatbox.trainings.counting import split_counts
from heatbox.trainings.order import TrainingOrder


def counted(folder, home):
    return split_counts(Settings(home=home), TrainingOrder("tiny@1", "tiny", data=(str(folder),)))


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


def test_a_coco_folder_counts_the_pictures_that_it_names_also_behind_a_link(pictures, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(pictures, target_is_directory=True)
    named = [{"file_name": f"{number}.png"} for number in range(4)]
    (data / "annotations.json").write_text(json.dumps({"images": [*named, {"file_name": "gone.png"}]}))
    found = counted(data, tmp_path)
    assert (sum(found.values()), found["not fetched"]) == (5, 1)


def test_a_folder_counts_all_pictures_below_it(pictures, tmp_path):
    assert sum(counted(pictures, tmp_path).values()) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has no picture in it"), ("{", "is not COCO"), ('{"images": [1]}', "is not COCO")],
)
def test_what_is_no_data_set_is_told_before_anything_is_learnt(tmp_path, content, message):
    data = tmp_path / "data"
    data.mkdir()
    if content is not None:
        (data / "annotations.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        counted(data, tmp_path)
