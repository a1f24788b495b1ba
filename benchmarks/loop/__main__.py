"""`make loop`: image labels, predictions, N corrections, training, tuning, the rest annotated and measured.

For each data set and each N, the rest of the pictures, which nobody corrects, is annotated in four ways: as in the
beginning, tuned only, trained only, trained and tuned. Everything goes through a real Label Studio and heatbox's own
commands. With several seeds each training is done with each of them, and the figures are means. Writes OUT/<set>.json,
OUT/curve.svg and OUT/table.md.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from heatbox.import_file import local_files_address
from heatbox.labelling.config import make_label_config
from heatbox.studio.client import Studio
from heatbox.studio.sample_project import Pictures, add_tasks, make_project
from loop.figure import write_curve, write_table
from loop.person import correct, prediction_of
from loop.sets import SETS, PhotoSet, TruePicture, read_set, write_pool
from loop.stages import Loop, Measured, environment, label_studio

CORRECTIONS = (25, 50, 100, 200)
_BASE = "mobilenet"


def main() -> None:
    """Read the options and run the loop of every set."""
    parser = argparse.ArgumentParser(prog="make loop", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the test data")
    parser.add_argument("--out", type=Path, default=Path("loop-out"))
    parser.add_argument("--program", type=Path, default=Path(".venv-studio/bin/label-studio"))
    parser.add_argument("--set", action="append", choices=[one.name for one in SETS])
    parser.add_argument("--corrections", type=int, nargs="+", default=list(CORRECTIONS))
    parser.add_argument("--seeds", type=int, default=1, help="trainings for each N")
    given = parser.parse_args()
    if not given.data.is_dir():
        sys.exit(f"There are no test data in {given.data}; name them: make loop DATA=FOLDER.")
    data, out = given.data.resolve(), given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    folder = out / time.strftime("%Y%m%d-%H%M%S")
    with label_studio(given.program.resolve(), folder, data) as session:
        for one in SETS:
            if given.set and one.name not in given.set:
                continue
            with Studio(session.url, session.token, timeout=180) as studio:
                loop = Loop(environment(folder / one.name, data, session), studio)
                found = run_set(loop, one, data, folder / one.name, given.corrections, range(given.seeds))
            (out / f"{one.name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            results = [json.loads(file.read_text()) for file in sorted(out.glob("*.json"))]
            write_table(results, out / "table.md")
            write_curve(results, out / "curve.svg")


def run_set(  # noqa: PLR0913, PLR0917 - where, what, how often
    loop: Loop, one: PhotoSet, data: Path, folder: Path, corrections: list[int], seeds: range
) -> dict[str, Any]:
    """Run the loop of one set and return what was measured."""
    began = time.perf_counter()
    pool, rest = read_set(one, data)
    labels = sorted({box[0] for picture in (*pool, *rest) for box in picture.boxes})
    pool_file = write_pool(pool, data, folder / "pool")
    first = _first_model(loop, one, data, pool_file, folder)
    _make_project(loop, one, labels, (*pool, *rest), data)
    version = loop.annotate("annotate all", list(loop.tasks.values()))
    start = loop.measure(rest, version)
    _say(one, 0, "begin", start)
    rows = [
        {"corrections": 0, "way": way, **asdict(start)} for way in ("tuned", "trained", "trained and tuned")
    ]
    done = 0
    trainings = []
    for count in corrections:
        if done == len(pool):
            break
        for picture in pool[done:count]:
            task = loop.tasks[picture.path]
            correct(loop.studio, task, picture, prediction_of(loop.studio, loop.project, task, version))
        done = min(count, len(pool))
        loop.heatbox("pull", "corrections", "pull", "--project", str(loop.project))
        rows.append(_arm(loop, one, first, rest, count=done, way="tuned"))
        for seed in seeds:
            training = loop.train(
                "train",
                *("--project", str(loop.project), "--data", str(pool_file), "--labels-only"),
                *("--base", first, "--seed", str(seed), *one.training),
            )
            trainings.append(training)
            model = str(training["challenger"])
            rows += [
                _arm(loop, one, model, rest, count=done, way=way) for way in ("trained", "trained and tuned")
            ]
    badly = ("--learning-rate", "3", "--epochs", "2", "--name", f"{one.name}-bad")
    refused = loop.train("train badly", "--project", str(loop.project), *badly)
    return {
        "set": one.name,
        "labels": labels,
        "pool": len(pool),
        "rest": len(rest),
        "rows": rows,
        "trainings": [
            {name: told[name] for name in ("challenger", "champion", "activated", "reason", "result")}
            for told in (*trainings, refused)
        ],
        "seconds": loop.seconds,
        "total_seconds": time.perf_counter() - began,
    }


def _arm(  # noqa: PLR0913 - one way of the four
    loop: Loop,
    one: PhotoSet,
    model: str,
    rest: list[TruePicture],
    *,
    count: int,
    way: str,
) -> dict[str, Any]:
    """Annotate the rest with a model, perhaps tuned, and return what was measured and what tuning had promised."""
    project, tuned, promised = str(loop.project), "tuned" in way, {}
    tasks = [loop.tasks[picture.path] for picture in rest]
    if tuned:
        name = f"{one.name}-{count}-{way.replace(' ', '-')}"
        told = loop.heatbox(
            "tune", "tune", "--project", project, "--name", name, "--json", HEATBOX_MODEL=model
        )
        promised = json.loads(told)["profile"]["expected"]
    version = loop.annotate("annotate the rest", tasks, HEATBOX_MODEL=model)
    found = loop.measure(rest, version)
    if tuned and loop.has_profile():
        loop.heatbox("profiles", "profiles", "drop", "--project", project)
    _say(one, count, way, found)
    return {"corrections": count, "way": way, **asdict(found), "promised": promised}


def _first_model(loop: Loop, one: PhotoSet, data: Path, pool_file: Path, folder: Path) -> str:
    """Register the network that knows ImageNet, let it learn the pool's image labels, and return the new model."""
    weights = data / "weights" / "mobilenet_v2_onnxzoo.pt"
    sidecar = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    names = json.loads((data / "weights" / "imagenet_classes.json").read_text(encoding="utf-8"))
    card = {
        "name": _BASE,
        "architecture": sidecar["arch"],
        "labels": [f"{name} #{index}" if names.count(name) > 1 else name for index, name in enumerate(names)],
        "input_size": 320,
        "mean": sidecar["mean"],
        "std": sidecar["std"],
        "padding": sidecar["padding"],
    }
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    loop.heatbox("add the network", "models", "add", str(weights), "--card", str(folder / "card.json"))
    told = loop.train(
        "train on image labels",
        *("--data", str(pool_file), "--labels-only", "--base", _BASE, "--name", one.name, *one.training),
    )
    return str(told["challenger"])


def _make_project(
    loop: Loop, one: PhotoSet, labels: list[str], pictures: tuple[TruePicture, ...], data: Path
) -> None:
    studio = loop.studio
    loop.project = make_project(studio, None, f"loop {one.name}", make_label_config(labels)).id
    for name in one.folders:
        folder = data / name / "images"
        addresses = {
            local_files_address(picture.path, data): picture.path
            for picture in pictures
            if picture.path.is_relative_to(folder)
        }
        add_tasks(studio, loop.project, Pictures(folder, [{"image": address} for address in addresses]))
        after = 0
        while page := studio.tasks(loop.project, after_id=after):
            after = page[-1].id
            found = {str(task.data["image"]): task.id for task in page}
            loop.tasks |= {path: found[address] for address, path in addresses.items() if address in found}


def _say(one: PhotoSet, count: int, way: str, found: Measured) -> None:
    figures = f"quality {found.box_quality:.3f}, IoU {found.mean_iou:.3f}, found {found.found:.3f}"
    print(
        f"{one.name}: {count} corrections, {way}: {figures}, {found.false_boxes:.2f} false boxes", flush=True
    )


main()
