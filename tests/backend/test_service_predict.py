"""/predict with a real Redis and worker: every kind of control, several pictures, known labels, prompts, pages."""

import os
import subprocess
import sys
from functools import partial

import pytest
from fixtures_redis import served

from heatbox.processes import stop
from heatbox.queueing.redis_server import private_redis
from heatbox.settings import Settings, as_environment

LABELS = ("cat", "dog", "bird")
BOX = ("RectangleLabels", "box", "Label")
OUTLINE = ("PolygonLabels", "outline", "Label")
MASK = ("BrushLabels", "mask", "Label")
ASKED = ("Choices", "what", "Choice")


def config(*controls, image='value="$image"', more=""):
    """Return a label config; `more` are attributes of its first control."""
    written = ""
    for rank, (tag, name, label) in enumerate(controls):
        labels = "".join(f'<{label} value="{value}"/>' for value in LABELS)
        written += f'<{tag} name="{name}" toName="image" {"" if rank else more}>{labels}</{tag}>'
    return f'<View><Image name="image" {image}/>{written}</View>'


@pytest.fixture(scope="module")
def ask(tmp_path_factory, tiny_store, pictures):
    """Ask a service for predictions of tasks; its worker is a process of its own."""
    home = tmp_path_factory.mktemp("service") / "home"
    with private_redis(home) as redis:
        settings = Settings(
            home=home,
            store=tiny_store,
            model="tiny",
            redis_url=redis.url,
            local_roots=(pictures,),
            min_probability=0,
            predict_deadline=50,
            threads=1,
            public_url="http://heatbox.example",
        )
        worker = subprocess.Popen(
            [sys.executable, "-m", "heatbox", "work"], env={**os.environ, **as_environment(settings)}
        )
        try:
            with served(settings) as client:
                yield partial(results, client)
        finally:
            stop(worker, 10)


def results(client, label_config, *tasks, context=None):
    body = {"tasks": tasks, "label_config": label_config, "project": "1.2"}
    if context is not None:
        body["params"] = {"login": None, "password": None, "context": context}
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200
    return answer.json()["results"]


def task(*pictures, number=1, key="image", **data):
    value = [str(picture) for picture in pictures] if key == "images" else str(pictures[0])
    return {"id": number, "data": {key: value, **data}}


def labels_of(prediction):
    return {label for one in prediction["result"] for label in one["value"][one["type"]]}


def drawn(kind="rectanglelabels", **fields):
    value = {"x": 0, "y": 0, "width": 50, "height": 100, kind: ["dog"]}
    return {"result": [{"type": kind, "from_name": "box", "to_name": "image", "value": value, **fields}]}


def test_every_kind_of_control_is_filled_in_one_prediction(ask, pictures):
    (made,) = ask(config(BOX, OUTLINE, MASK, ASKED), task(pictures / "0.png"))
    kinds = [one["type"] for one in made["result"]]
    assert set(kinds) == {"rectanglelabels", "polygonlabels", "brushlabels", "choices"}
    assert kinds.count("rectanglelabels") == kinds.count("polygonlabels") == kinds.count("brushlabels") > 0
    assert 0 <= made["score"] <= 1


def test_a_region_links_the_page_of_its_task(ask, pictures):
    (made,) = ask(config(BOX), task(pictures / "0.png", number=7))
    assert {one["meta"]["heatbox"]["evidence"] for one in made["result"]} == {
        "http://heatbox.example/v1/tasks/7/evidence?project=1"
    }


def test_several_pictures_of_a_task_have_item_indices_and_one_that_fails_costs_only_itself(ask, pictures):
    several = config(BOX, image='valueList="$images"')
    one, other = pictures / "0.png", pictures / "1.png"
    (made,) = ask(several, task(one, pictures / "none.png", other, key="images"))
    assert {region["item_index"] for region in made["result"]} == {0, 2}
    assert len({region["id"] for region in made["result"]}) == len(made["result"])


def test_known_labels_are_looked_for_and_no_others(ask, pictures):
    told = config(BOX, more='model_labels="$kind"')
    picture = pictures / "0.png"
    made = ask(
        told, task(picture, kind="dog"), task(picture, kind=["bird", "cat"]), task(picture, kind="cow")
    )
    assert [labels_of(one) for one in made] == [{"dog"}, {"bird", "cat"}, set()]


def test_an_answered_question_is_what_is_looked_for(ask, pictures):
    answer = {"from_name": "what", "type": "choices", "value": {"choices": ["bird"]}}
    answered = {**task(pictures / "0.png"), "annotations": [{"id": 1, "result": [answer]}]}
    assert labels_of(ask(config(BOX, ASKED), answered)[0]) == {"bird"}


@pytest.mark.parametrize("kind", ["rectanglelabels", "keypointlabels"])
def test_a_prompt_asks_for_its_label_and_gets_regions_alone(ask, pictures, kind):
    (made,) = ask(config(BOX, ASKED), task(pictures / "0.png"), context=drawn(kind))
    assert labels_of(made) == {"dog"}
    assert {one["type"] for one in made["result"]} == {"rectanglelabels"}


def test_a_drawn_rectangle_restricts_where_is_looked(ask, pictures):
    (made,) = ask(config(BOX), task(pictures / "0.png"), context=drawn())
    assert made["result"]
    assert all(one["value"]["x"] + one["value"]["width"] <= 50.01 for one in made["result"])


def test_a_prompt_is_about_the_picture_that_it_was_drawn_on(ask, pictures):
    several = config(BOX, image='valueList="$images"')
    pair = task(pictures / "0.png", pictures / "1.png", key="images")
    (made,) = ask(several, pair, context=drawn(item_index=1))
    assert {one["item_index"] for one in made["result"]} == {1}


@pytest.mark.parametrize(
    "context",
    [
        drawn(item_index=9),
        {"result": [{"type": "brushlabels", "value": {"format": "rle", "rle": [1]}}]},
        {"result": []},
        {"result": [{"type": "rectanglelabels", "value": {"x": "left"}}]},
    ],
)
def test_a_prompt_is_answered_with_an_object_whatever_was_drawn(ask, pictures, context):
    (made,) = ask(config(BOX), task(pictures / "0.png"), context=context)
    assert {"result", "score", "model_version"} <= made.keys()


def test_a_prompt_about_a_picture_that_cannot_be_read_is_an_object_without_regions(ask, pictures):
    (made,) = ask(config(BOX), task(pictures / "none.png"), context=drawn())
    assert made["result"] == []
