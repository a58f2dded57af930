"""A cluster answers every image once, as one process does, though workers die."""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import socket
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import xcit_hub
from xcit_hub import Predictor, ray_engine
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.prediction import Answer, sources
from xcit_hub.ray_engine import answers_on_ray
from xcit_hub.variants import Preprocessing

# Imported where it is used: one of the workers runs these tests, and all of them read this file.
pytestmark = pytest.mark.skipif(not all(map(find_spec, ("ray", "pyarrow"))), reason="Ray is not installed")

_IMAGES = 1000


@pytest.fixture(scope="module", autouse=True)
def _all_cores() -> Iterator[None]:
    """A cluster has several processes, which are not to share the core that this one may have been given.

    Nor are its workers to give way to all others, as they do by themselves: on a busy machine they would hardly run.
    """
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        yield
    os.sched_setaffinity(0, own)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "nano"
    network = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=4, seed=0)
    network.config = replace(network.description(), preprocessing=Preprocessing(image_size=32))
    network.save_pretrained(folder)
    return folder


def _png(seed: int) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 40, 3), np.uint8)).save(written, "PNG")
    return written.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """1,000 images: files, a tar shard and a Parquet table; three of them are torn."""
    import pyarrow
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("data")
    contents = [_png(seed) for seed in range(_IMAGES)]
    for torn in (100, 500, 900):
        contents[torn] = contents[torn][:40]
    for number in range(400):
        (folder / f"{number:04}.png").write_bytes(contents[number])
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for number in range(400, 700):
            for name, content in ((f"{number:04}.png", contents[number]), (f"{number:04}.cls", b"1")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    table = pyarrow.table({"image": pyarrow.array(contents[700:], pyarrow.binary())})
    parquet.write_table(table, folder / "table.parquet", row_group_size=64)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[None]:
    """The cluster that the engine starts by itself: of this machine, on loopback."""
    import ray

    with ray_engine.cluster(workers=2):
        yield
    assert not ray.is_initialized()


def _alike(found: list[Answer], expected: list[Answer]) -> None:
    assert [answer.image for answer in found] == [answer.image for answer in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.problem == other.problem
        shares = [{each.index: each.probability for each in answer.classes} for answer in (one, other)]
        assert shares[0].keys() == shares[1].keys()
        assert np.allclose([shares[0][index] for index in shares[1]], list(shares[1].values()), atol=1e-5)


def test_every_image_is_answered_once_and_as_alone_though_a_worker_is_killed(
    cluster: None, model: Path, data: Path, tmp_path: Path
) -> None:
    died = tmp_path / "died"

    class Mortal(Predictor):  # the first worker that meets image 450 dies of it
        def answers(self, images: Iterable[Any]) -> Iterator[Answer]:
            images = list(images)
            if any(str(image).endswith("0450.png") for image in images) and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().answers(images)

    images = sources([str(data)]).images
    assert len(images) == _IMAGES
    found = list(answers_on_ray(Mortal(str(model)), images, workers=2))
    assert died.exists() and len(found) == _IMAGES
    assert sum(bool(answer.problem) for answer in found) == 3
    _alike(found, list(Predictor(str(model)).answers(images)))


def test_an_image_that_kills_whoever_opens_it_is_named_and_the_others_are_answered(
    cluster: None, model: Path, data: Path
) -> None:
    class Poisoned(Predictor):
        def answers(self, images: Iterable[Any]) -> Iterator[Answer]:
            images = list(images)
            if any(str(image).endswith("0001.png") for image in images):
                os.kill(os.getpid(), signal.SIGKILL)
            return (Answer(str(image), (), "seen") for image in images)  # no network: what dies is what matters

    images = sources([f"{data}/000*.png"]).images
    found = list(answers_on_ray(Poisoned(str(model), batch=1), images, workers=1))
    assert [answer.image for answer in found] == [str(path) for path in images]
    assert [answer.problem for answer in found if answer.problem != "seen"] == [
        "3 workers died of it, one after the other"
    ]
    assert found[1].problem != "seen"


def test_workers_that_die_whatever_they_do_end_it(cluster: None, model: Path, data: Path, monkeypatch) -> None:
    class Lost(Predictor):
        def answers(self, images: Iterable[Any]) -> Iterator[Answer]:
            os.kill(os.getpid(), signal.SIGKILL)
            return iter(())

    monkeypatch.setattr(ray_engine, "_MOST_DEATHS", 2)
    with pytest.raises(XcitHubError, match="3 workers died one after the other"):
        list(answers_on_ray(Lost(str(model)), sources([f"{data}/000*.png"]).images, workers=1))


def test_a_worker_or_machine_that_ray_ended_is_a_death_and_whatever_else_ray_raises_is_said(cluster: None) -> None:
    import ray

    for kind in (ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError):
        died = kind() if kind is ray.exceptions.WorkerCrashedError else kind("Workers were killed")
        assert ray_engine._result(ray.put(died)) is None, kind
    with pytest.raises(XcitHubError, match=r"A worker of the Ray cluster failed: .*no such module"):
        ray_engine._result(ray.put(ray.exceptions.RaySystemError("no such module")))


def test_what_a_worker_dropped_of_the_model_is_told(cluster: None, model: Path, data: Path) -> None:
    ignoring = Predictor(str(model), ignore_fields=("config.json",))
    told: list[str] = []
    assert len(list(answers_on_ray(ignoring, sources([f"{data}/0000.png"]).images, workers=1, tell=told.extend))) == 1
    assert any("config.json was ignored" in note for note in told)


def test_what_a_worker_cannot_load_is_said_as_alone(cluster: None, data: Path, tmp_path: Path) -> None:
    (tmp_path / "nano.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(XcitHubError) as alone:
        _ = Predictor(str(tmp_path / "nano.ckpt")).network
    with pytest.raises(type(alone.value)) as there:
        list(answers_on_ray(Predictor(str(tmp_path / "nano.ckpt")), sources([f"{data}/0000.png"]).images))
    assert (there.value.what, there.value.fix) == (alone.value.what, alone.value.fix)


def test_more_workers_than_cores_are_refused(cluster: None, model: Path, data: Path) -> None:
    with pytest.raises(InputError, match="a worker takes one at least"):
        list(answers_on_ray(Predictor(str(model)), sources([f"{data}/0000.png"]).images, workers=10_000))


@pytest.mark.parametrize(
    ("machines", "workers", "shares"),
    [
        ([4], None, (2, 2)),
        ([3], None, (1, 2)),
        ([1], None, (1, 1)),
        ([4], 2, (2, 2)),
        ([4], 3, (3, 1)),
        ([1, 1], None, (2, 1)),
        ([1, 1], 1, (1, 1)),
        ([3, 3], None, (2, 2)),
        ([3, 3], 3, (3, 1)),
        ([0, 2, 1], None, (1, 2)),
        ([0, 2, 1], 3, (3, 1)),
    ],
)
def test_every_worker_fits_on_one_of_the_machines(
    machines: list[int], workers: int | None, shares: tuple[int, int]
) -> None:
    assert ray_engine._shares(machines, workers) == shares
    count, cpus = shares
    assert sum(cores // cpus for cores in machines) >= count
    with pytest.raises(InputError, match="a worker takes one at least"):
        ray_engine._shares(machines, sum(machines) + 1)


@pytest.mark.parametrize("as_class", [False, True])
def test_ray_data_takes_a_predictor_as_it_is(cluster: None, model: Path, data: Path, as_class: bool) -> None:
    import ray.data

    rows = [{"path": str(path)} for path in (*sorted(data.glob("00[01]?.png"))[:20], data / "0100.png")]
    dataset = ray.data.from_items(rows, override_num_blocks=3)
    ray.data.DataContext.get_current().enable_progress_bars = False
    if as_class:
        pool = ray.data.ActorPoolStrategy(size=1)
        dataset = dataset.map_batches(Predictor, fn_constructor_kwargs={"model": str(model), "top": 2}, compute=pool)
    else:
        dataset = dataset.map_batches(Predictor(str(model), top=2))
    found = {row["path"]: row for row in dataset.take_all()}
    alone = Predictor(str(model), top=2)({"path": [row["path"] for row in rows]})
    assert set(found) == set(alone["path"])
    for path, index, share, problem in zip(
        alone["path"], alone["index"], alone["share"], alone["problem"], strict=True
    ):
        assert list(found[path]["index"]) == list(index) and found[path]["problem"] == problem
        assert np.allclose(found[path]["share"], share, atol=1e-5)


def test_the_command_writes_a_row_an_image_and_leaves_no_cluster(
    model: Path, data: Path, tmp_path: Path, run_cli, run_here
) -> None:
    from pyarrow import parquet

    few = [str(data / "0000.png"), str(data / "0100.png"), str(data / "shard.tar")]
    command = ("predict", str(model), *few, "--engine", "ray", "--parquet", "classes.parquet", "--top", "2")
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    done = run_cli(*command, cwd=tmp_path, env=environment)
    assert done.returncode == 1, done.stderr
    assert "0100.png" in done.stderr and "0500.png" in done.stderr and "Traceback" not in done.stderr
    assert "2 not answered, 300 answered" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["classes.parquet"]  # nothing of Ray's in the home
    rows = parquet.read_table(tmp_path / "classes.parquet").to_pylist()
    local = run_here("predict", str(model), *few, "--parquet", "local.parquet", "--top", "2", cwd=tmp_path)
    assert local.returncode == 1
    expected = parquet.read_table(tmp_path / "local.parquet").to_pylist()
    assert [(row["image"], row["index"], row["problem"]) for row in rows] == [
        (row["image"], row["index"], row["problem"]) for row in expected
    ]
    assert np.allclose(
        [row["share"] for row in rows if row["share"]], [row["share"] for row in expected if row["share"]]
    )

    again = run_here("predict", str(model), few[0], "--parquet", "local.parquet", cwd=tmp_path)
    assert again.returncode == 2 and "something already" in again.stderr
    assert parquet.read_table(tmp_path / "local.parquet").num_rows == 302


def test_the_command_joins_a_cluster_by_its_address(
    cluster: None, model: Path, data: Path, tmp_path: Path, run_cli
) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    assert address.startswith("127.0.0.1:")  # nothing of it can be reached from elsewhere
    arguments = ("--engine", "ray", "--address", address, "--json")
    done = run_cli("predict", str(model), str(data / "0000.png"), *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ray.cluster_resources()["CPU"] >= 2  # it goes on


def test_the_command_refuses_in_a_sentence(model: Path, data: Path, tmp_path: Path, run_cli) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
        for options, words in (
            (("--engine", "spark"), "no engine 'spark'"),
            (("--workers", "2"), "--workers is the ray engine's"),
            (("--address", nobody), "--address is the ray engine's"),
            (("--engine", "ray", "--html", "a.html"), "draws nothing"),
            (("--engine", "ray", "--address", nobody), "There is no cluster"),
            (("--engine", "ray", "--address", "nowhere"), "not a cluster's address"),
        ):
            done = run_cli("predict", str(model), str(data / "0000.png"), *options, cwd=tmp_path)
            assert done.returncode == 2, options
            assert words in " ".join(done.stderr.split()) and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_without_ray_the_extra_is_named(model: Path, data: Path, tmp_path: Path, run_here, monkeypatch) -> None:
    found = importlib.util.find_spec
    there = lambda name, *package: None if name in ("ray", "pyarrow") else found(name, *package)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", there)
    for options in (("--engine", "ray"), ("--parquet", "a.parquet")):
        done = run_here("predict", str(model), str(data / "0000.png"), *options, cwd=tmp_path)
        assert done.returncode == 2 and "xcit-hub[ray]" in done.stderr and "Traceback" not in done.stderr, done.stderr
