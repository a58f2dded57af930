"""Prediction: 1,000 photographs in a folder become classes; beside it what decoding and the network take apart.

A step is all photographs once. All contenders decode with one thread and compute with all cores; "one after the other"
is the sum of what decoding and the network take apart, which ``xcit-hub predict`` does at the same time.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import feeding
from benchmarks.case import Case, Contender, NotHereError, Step
from xcit_hub.files import scratch_folder

APART = "decoding and network, one after the other"

_PHOTOGRAPHS = 1000


def prepare(case: Case) -> None:
    """Write the photographs that the input pipeline is measured on, and some more."""
    feeding.prepare(case, _PHOTOGRAPHS)


def _network(case: Case) -> Any:
    import xcit_hub

    network = xcit_hub.create_model(case.model, seed=0)
    described = network.description()
    seen = replace(described.preprocessing, image_size=case.height, image_width=case.width)
    network.config = replace(described, preprocessing=seen)
    return network.set_train(False)


def _paths(case: Case) -> list[Path]:
    from xcit_hub.data.folders import find_images

    return find_images(Path(case.folder)).images


def decoding(case: Case) -> Step:
    """Decode and prepare alone."""
    from xcit_hub.prediction import preprocess

    prepare, paths = preprocess(_network(case)), _paths(case)
    return lambda: sum(1 for path in paths if prepare(path) is not None)


def network_alone(case: Case) -> Step:
    """Classify what is prepared already, as often."""
    from xcit_hub.prediction import classify, preprocess

    network, paths = _network(case), _paths(case)
    pixels = np.stack([preprocess(network)(path) for path in paths[: case.batch]])

    def step() -> int:
        turns = -(-len(paths) // len(pixels))
        for _ in range(turns):
            classify(network, pixels)
        return turns * len(pixels)

    return step


def one_after_the_other(case: Case) -> Step:
    """Decode a batch, then classify it, then the next."""
    from xcit_hub.prediction import classify, preprocess

    network, paths = _network(case), _paths(case)
    prepare = preprocess(network)

    def batches() -> Iterator[list[Path]]:
        waiting = iter(paths)
        while batch := list(islice(waiting, case.batch)):
            yield batch

    return lambda: sum(len(classify(network, np.stack([prepare(path) for path in batch]))) for batch in batches())


def predict(case: Case) -> Step:
    """Classify as ``xcit-hub predict`` does."""
    from xcit_hub.prediction import answers

    network, paths = _network(case), _paths(case)
    return lambda: sum(1 for _ in answers(network, paths, batch=case.batch))


def predict_on_ray(case: Case, *, workers: int) -> Step:
    """Classify as ``xcit-hub predict --engine ray`` does; its workers start anew, which is counted."""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise NotHereError("not installed (pip install 'xcit-hub[ray]')") from error
    from xcit_hub.predictor import Predictor
    from xcit_hub.ray_engine import answers_on_ray, cluster

    stack, paths = ExitStack(), _paths(case)
    atexit.register(stack.close)  # who ends otherwise leaves what the next one removes
    folder = stack.enter_context(scratch_folder()) / "model"
    _network(case).save_pretrained(folder)
    stack.enter_context(cluster(workers=workers))
    predictor = Predictor(str(folder), batch=case.batch)
    return lambda: sum(1 for _ in answers_on_ray(predictor, paths, workers=workers))


_RAY: dict[str, Callable[[Case], Step]] = {
    f"xcit-hub predict --engine ray, {workers} workers": partial(predict_on_ray, workers=workers) for workers in (1, 2)
}

PREDICTORS: dict[str, Contender] = {
    APART: Contender(one_after_the_other),
    "decoding alone": Contender(decoding),
    "network alone": Contender(network_alone),
    "xcit-hub predict": Contender(predict),
    **{name: Contender(build) for name, build in _RAY.items()},
}
