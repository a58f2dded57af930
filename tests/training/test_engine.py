from __future__ import annotations

import csv
import errno
import json
import math
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
from image_folder import write_images

from xcit_hub import variants
from xcit_hub.checkpoints import checkpoint
from xcit_hub.data.batches import Worker
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.files import sha256_of
from xcit_hub.run_record import RunRecord
from xcit_hub.training import engine, journal
from xcit_hub.training.engine import train
from xcit_hub.training.inputs import eval_data
from xcit_hub.training.recipe import Recipe, Scheduler
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.recipe_rules import ONLY_VALUE, WITHOUT_EFFECT
from xcit_hub.training.resume import Progress, save_state
from xcit_hub.training.schedule import learning_rates
from xcit_hub.training.scorer import Scorer
from xcit_hub.training.scoring import score, settings_of, stored_network

pytest.importorskip("xcit_hub.timm")  # reads the variant table, before a test adds to it

pytestmark = pytest.mark.usefixtures("pynative")


@pytest.fixture
def recipe_of(least_architecture: str, tmp_path: Path) -> Any:
    data = write_images(tmp_path / "data")

    def build(folder: str = "run", **changes: Any) -> Recipe:
        settings = {
            "model": least_architecture,
            "mode": 1,
            "dataset": "imagefolder",
            "data_dir": str(data),
            "ckpt_save_dir": str(tmp_path / folder),
            "image_resize": 32,
            "batch_size": 8,
            "epoch_size": 2,
            "warmup_epochs": 0,
            "decay_epochs": 2,
            "weight_decay_filter": "paper",
            "dialect": "paper",
            "num_parallel_workers": 1,
        }
        return load_recipe(None, {**settings, **changes})

    return build


def tensors(path: Path) -> dict[str, np.ndarray]:
    with checkpoint.read(path) as stored:
        return {name: np.array(tensor.numpy()) for name, tensor in stored.tensors.items()}


def test_a_run_leaves_checkpoints_curves_and_a_record_that_agree(
    recipe_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(val_while_train=True, ema=True, ema_decay=0.5, keep_checkpoint_max=1)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".somebody.ckpt.a1b2_3c4.tmp").write_bytes(b"half")  # as a killed run leaves it
    record = train(recipe, recipe_name="a recipe")
    assert not list(folder.glob(".*.tmp"))
    written = RunRecord.read(folder / "run.json")
    assert written == record
    assert (record.cards, record.batch_size, record.epochs, record.eval_samples) == (1, 8, 2, 9)
    assert record.ms_per_step is not None
    assert record.images_per_second == pytest.approx(8000 / record.ms_per_step, rel=1e-3)
    best = folder / f"{recipe.model}_best.ckpt"
    assert record.checkpoint_sha256 == sha256_of(best)
    # The policy kept one; the best one is kept beside it.
    kept = [f"{recipe.model}-2_3.ckpt", f"{recipe.model}-2_3_ema.ckpt", best.name]
    assert sorted(path.name for path in folder.glob("*.ckpt")) == kept
    for name in ("steps.csv", "epochs.csv", "curves.png", "resume.safetensors"):
        assert (folder / name).stat().st_size
    assert list((folder / "tensorboard").iterdir())

    # What the run said of its best weights is what an evaluation of the file finds.
    evaluated = load_recipe(None, {**recipe.model_dump(), "ckpt_path": str(best)})
    stored = stored_network(evaluated)
    network, digest = stored.network, stored.digest
    monkeypatch.delitem(variants.ARCHITECTURES, recipe.model)  # timm's own table does not have it either
    report = score(evaluated, network, digest=digest, output=tmp_path / "eval", against_timm=True)
    assert report is not None
    assert (report.ours.top1, digest) == (record.top1, record.checkpoint_sha256)
    assert report.theirs is not None
    assert (report.theirs.top1, report.differences) == (report.ours.top1, ())
    assert (tmp_path / "eval" / "confusion.png").stat().st_size
    lines = (tmp_path / "eval" / "per_class.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [[f"class{label}", "3"] for label in range(3)]
    evaluation = RunRecord.read(tmp_path / "eval" / "run.json")
    assert (record.train_split, record.eval_split, evaluation.eval_split) == ("train", "val", "val")
    assert evaluation.top1 == record.top1
    assert sum(map(sum, evaluation.confusion or [])) == 9 and len(evaluation.samples) == 3
    # The curve is what the table says after each epoch.
    with (folder / "epochs.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(each.epoch, each.loss, each.top1, each.eval_loss, each.average_top1) for each in record.curve] == [
        (int(row["epoch"]), *(float(row[name]) for name in ("loss", "top1", "eval_loss", "average_top1")))
        for row in rows
    ]


DROPS = {"drop_path_rate": 0.1, "drop_rate": 0.1}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param(DROPS, 0.0, id="drops"),
        pytest.param({"ema": True, "loss_scale_type": "dynamic", "loss_scale": 64.0}, 0.0, id="ema"),
        # In a graph test_recovery does so bit for bit, within an epoch.
        pytest.param({"drop_path_rate": 0.1, "mode": 0}, 1e-6, id="graph", marks=pytest.mark.campaign),
    ],
)
def test_a_continued_run_equals_an_uninterrupted_one(
    recipe_of: Any, tmp_path: Path, changes: Any, error: float
) -> None:
    augmented = {"mixup": 0.8, "cutmix": 1.0, "re_prob": 0.25, "auto_augment": "randaug-m9-mstd0.5-inc1", **changes}

    def interrupt(progress: Progress) -> None:
        # What a run leaves that ends here is what lies here.
        if progress.epochs_done == 1:
            shutil.copytree(tmp_path / "whole", tmp_path / "parts")

    train(recipe_of("whole", **augmented), on_epoch=interrupt)
    record = train(recipe_of("parts", **augmented), resume=True)
    assert record.epochs == 2
    whole, parts = (tensors(tmp_path / folder / "resume.safetensors") for folder in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=0, atol=error, err_msg=name)
    losses = [(tmp_path / folder / "steps.csv").read_text().splitlines()[1:] for folder in ("whole", "parts")]
    for one, other in zip(*losses, strict=True):
        np.testing.assert_allclose(*([float(x) for x in row.split(",")[:4]] for row in (one, other)), rtol=error)


def test_what_is_dropped_changes_from_step_to_step(recipe_of: Any, tmp_path: Path) -> None:
    # Without augmentation, with one batch an epoch and no learning rate to speak of, only the masks can differ.
    still = {"batch_size": 24, "scale": [1.0, 1.0], "ratio": [1.0, 1.0], "hflip": 0.0, "color_jitter": 0.0, "lr": 1e-12}
    losses = {}
    for name, changes in {"none": {}, "drops": {"drop_path_rate": 0.5}}.items():
        train(recipe_of(name, **still, **changes))
        rows = (tmp_path / name / "steps.csv").read_text().splitlines()[1:]
        losses[name] = [float(row.split(",")[2]) for row in rows]
    assert losses["none"][0] == pytest.approx(losses["none"][1], rel=1e-5)
    assert abs(losses["drops"][0] - losses["drops"][1]) > 1e-4


def test_a_run_is_neither_overwritten_nor_continued_under_another_recipe(recipe_of: Any) -> None:
    train(recipe_of(epoch_size=1))
    with pytest.raises(InputError, match="Another run"):
        train(recipe_of(epoch_size=1))
    with pytest.raises(InputError, match=r"lr was 0\.001 and is 0\.5"):
        train(recipe_of(epoch_size=1, lr=0.5), resume=True)
    with pytest.raises(XcitHubError, match="no run to continue"):
        train(recipe_of("elsewhere"), resume=True)


def test_a_full_disk_is_reported_and_the_old_state_still_stands(
    recipe_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(progress: Progress) -> None:
        def no_space(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("os.fsync", no_space)

    with pytest.raises(XcitHubError, match="No space left"):
        train(recipe_of(), on_epoch=fill)
    monkeypatch.undo()
    folder = tmp_path / "run"
    assert not list(folder.glob("*.tmp"))
    with checkpoint.read(folder / "resume.safetensors") as stored:
        assert json.loads(stored.metadata["progress"])["epochs_done"] == 1
    assert list(folder.glob("*-1_3.ckpt"))


def test_unreadable_images_are_named_counted_and_limited(
    recipe_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [tmp_path / "data" / "train" / "class1" / f"{number}.png" for number in (2, 5)]
    for path in broken:
        path.write_bytes(path.read_bytes()[:100])
    record = train(recipe_of(epoch_size=1))
    assert sorted(record.model_dump()["unreadable"]) == [str(path) for path in broken]
    assert str(broken[0]) in capsys.readouterr().err
    with pytest.raises(InputError, match="2 images cannot be read"):
        train(recipe_of("strict", max_corrupt=1))


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(recipe_of: Any, tmp_path: Path) -> None:
    with pytest.raises(XcitHubError, match=r"The loss is (nan|inf) at step") as caught:
        train(recipe_of(lr=1e30, drop_overflow_update=False))
    assert str(tmp_path / "data" / "train" / "class") in str(caught.value)
    assert "no epoch was finished" in str(caught.value)


def test_fine_tuning_keeps_everything_but_a_head_for_other_classes(recipe_of: Any, tmp_path: Path) -> None:
    train(recipe_of("first", epoch_size=1, num_classes=5))
    stored = next((tmp_path / "first").glob("*.ckpt"))
    recipe = recipe_of("second", epoch_size=1, ckpt_path=str(stored), lr=1e-12, freeze_bn=True, weight_decay=0.0)
    train(recipe)
    before, after = tensors(stored), tensors(next((tmp_path / "second").glob("*.ckpt")))
    assert after["head.weight"].shape[0] == 3
    for name in before.keys() - {"head.weight", "head.bias"}:
        np.testing.assert_allclose(after[name], before[name], atol=1e-6, err_msg=name)


def test_a_student_is_distilled_from_a_stored_teacher(recipe_of: Any, tmp_path: Path, least_architecture: str) -> None:
    train(recipe_of("teacher", epoch_size=1))
    stored = next((tmp_path / "teacher").glob("*.ckpt"))
    losses = {}
    for kind in ("soft", "hard"):
        settings = {"teacher": least_architecture, "teacher_ckpt": str(stored), "distillation_type": kind}
        record = train(recipe_of(kind, epoch_size=1, **settings))
        losses[kind] = record.model_dump()["final_loss"]
    assert losses["soft"] != losses["hard"]
    assert all(np.isfinite(loss) for loss in losses.values())


def test_a_checkpoint_says_what_it_is(recipe_of: Any, tmp_path: Path) -> None:
    train(recipe_of(epoch_size=1, dialect="mindcv"))
    with checkpoint.read(next((tmp_path / "run").glob("*.ckpt"))) as stored:
        assert stored.metadata["xcit_hub.dialect"] == "mindcv"
        assert json.loads(stored.metadata["xcit_hub.classes"]) == ["class0", "class1", "class2"]
    with pytest.raises(XcitHubError, match="dialect"):
        stored_network(recipe_of(ckpt_path=str(next((tmp_path / "run").glob("*.ckpt"))), dialect="paper"))


def test_what_was_evaluated_travels_with_the_weights(recipe_of: Any, tmp_path: Path) -> None:
    """Checkpoint and record say what evaluation did: an image prepared by them is the image that was scored."""
    from xcit_hub.data.transforms import EvalTransform
    from xcit_hub.variants import Preprocessing

    seen = {"crop_pct": 0.9, "interpolation": "bilinear", "mean": [120.0, 110.0, 100.0], "std": [60.0, 61.0, 62.0]}
    recipe = recipe_of(epoch_size=1, val_while_train=True, **seen)
    record = train(recipe, flags={"crop_pct": 0.9})
    path = tmp_path / "run" / f"{recipe.model}_best.ckpt"
    with checkpoint.read(path) as stored:
        said = json.loads(stored.metadata["xcit_hub.preprocessing"])
        assert json.loads(stored.metadata["xcit_hub.classes"]) == ["class0", "class1", "class2"]
    assert said == {
        "input_size": [3, 32, 32],
        "mean": [value / 255 for value in seen["mean"]],
        "std": [value / 255 for value in seen["std"]],
        "interpolation": "bilinear",
        "crop_pct": 0.9,
        "crop_mode": "center",
    }
    written = json.loads((tmp_path / "run" / "run.json").read_text())
    assert written["preprocessing"] == said
    assert written["classes"] == ["class0", "class1", "class2"]
    assert written["flags"] == {"crop_pct": 0.9}
    assert written["configuration"]["crop_pct"] == 0.9
    assert written["eval_loss"] == pytest.approx(record.eval_loss) != 0
    image = tmp_path / "data" / "val" / "class1" / "0.png"
    told = Preprocessing(
        said["input_size"][1], said["crop_pct"], said["interpolation"], tuple(said["mean"]), tuple(said["std"])
    )
    batches = eval_data(recipe, Worker())
    index = next(number for number in range(9) if batches.source.name(number) == str(image))
    scored = next(iter(batches))[0][index]
    np.testing.assert_array_equal(EvalTransform(told)(image), scored)


def test_labels_follow_the_class_folders_names(recipe_of: Any, tmp_path: Path, capsys: Any) -> None:
    whole = train(recipe_of("whole", epoch_size=1, val_while_train=True))
    assert whole.eval_samples == 9
    shutil.rmtree(tmp_path / "data" / "val" / "class0")
    stored = tmp_path / "whole" / f"{whole.model}_best.ckpt"
    recipe = recipe_of(ckpt_path=str(stored))
    found = stored_network(recipe)
    report = score(recipe, found.network, classes=found.classes)
    assert report is not None
    assert report.ours.samples == 6
    assert report.ours.classes[:, 0].tolist() == [0, 3, 3], "a class is missing; the others keep their labels"
    train(recipe_of("part", epoch_size=1, val_while_train=True))
    assert "has no image of them: class0" in capsys.readouterr().err
    (tmp_path / "data" / "val" / "class1").rename(tmp_path / "data" / "val" / "class9")
    with pytest.raises(InputError, match="not classes of the training data: class9"):
        train(recipe_of("other", epoch_size=1, val_while_train=True))
    with pytest.raises(InputError, match="not classes of the network: class9"):
        score(recipe, found.network, classes=found.classes)


def test_files_of_the_evaluation_split_that_are_not_images_are_counted_while_it_trains(
    recipe_of: Any, tmp_path: Path
) -> None:
    from xcit_hub.models import create_model

    (tmp_path / "data" / "val" / "class0" / "0.gif").touch()
    network = create_model(recipe_of().model, num_classes=3, dialect="paper", seed=1)
    scorer = Scorer(recipe_of(), network, Worker(), ["class0", "class1", "class2"])
    assert scorer.notes == ["1 files of val are not images by their names or places, and were left out"]


def test_a_network_of_1000_classes_is_not_scored_on_3_others(recipe_of: Any) -> None:
    from xcit_hub.models import create_model

    network = create_model(recipe_of().model, num_classes=1000, dialect="paper", seed=1)
    for labels, certain in ((None, True), ([f"ImageNet's {number}" for number in range(1000)], False)):
        with pytest.raises(InputError, match="3 classes, the network 1000, and nothing says which"):
            score(recipe_of(), network, classes=labels, certain=certain)


def test_the_dialect_is_asked_for_or_the_checkpoints(recipe_of: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not say which of the two networks"):
        train(recipe_of(epoch_size=1, dialect=None))
    train(recipe_of(epoch_size=1, dialect="mindcv"))
    stored = next((tmp_path / "run").glob("*.ckpt"))
    found = stored_network(recipe_of(ckpt_path=str(stored), dialect=None))
    assert found.network.dialect.name == "mindcv"
    record = train(recipe_of("tuned", epoch_size=1, dialect=None, ckpt_path=str(stored)))
    assert (record.dialect, record.started_from) == ("mindcv", str(stored))


def test_a_finished_run_keeps_its_figures_when_it_is_continued(
    recipe_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = train(recipe_of(val_while_train=True))
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert record.ms_per_step is not None
    capsys.readouterr()
    assert train(recipe_of(val_while_train=True, ckpt_path="gone.ckpt"), resume=True) == record
    said = capsys.readouterr().err
    assert "ckpt_path has no effect" in said and "the run is at its end: nothing was trained" in said
    with pytest.raises(InputError, match=r"run\.json would be replaced"):
        best = recipe_of(ckpt_path=str(tmp_path / "run" / f"{record.model}_best.ckpt"))
        score(best, stored_network(best).network, output=tmp_path / "run")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before
    assert "the times of run.json" not in said
    (tmp_path / "run" / "run.json").unlink()  # a kill between the last epoch and the record
    assert train(recipe_of(val_while_train=True), resume=True) == record


def test_the_run_json_of_another_run_is_not_taken_for_that_of_a_continued_one(
    recipe_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = train(recipe_of(epoch_size=1))
    written = tmp_path / "run" / "run.json"
    written.write_text(RunRecord(model="another", top1=99.0, eval_samples=10).model_dump_json())
    assert train(recipe_of(epoch_size=1), resume=True) == record == RunRecord.read(written)
    assert "run.json that was here is another run's" in capsys.readouterr().err


def test_both_weights_are_kept_scored_and_stored(recipe_of: Any, tmp_path: Path) -> None:
    recipe = recipe_of(epoch_size=1, ema=True, ema_decay=0.99996, ema_warmup=0, val_while_train=True, lr=0.003)
    record = train(recipe)
    name = f"{recipe.model}-1_3"
    trained, average = (tensors(tmp_path / "run" / f"{name}{end}.ckpt") for end in ("", "_ema"))
    assert np.abs(trained["head.weight"] - average["head.weight"]).max() > 1e-4
    best = tensors(tmp_path / "run" / f"{recipe.model}_best.ckpt")
    chosen = {"trained": trained, "average": average}[record.weights or ""]
    np.testing.assert_array_equal(best["head.weight"], chosen["head.weight"])
    (row,) = list(csv.DictReader((tmp_path / "run" / "epochs.csv").open()))
    assert max(float(row["top1"]), float(row["average_top1"])) == pytest.approx(record.top1, abs=1e-5)
    assert float(row["eval_loss"]) != float(row["average_eval_loss"])


def test_curves_in_tensorboard_have_a_time(recipe_of: Any, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    began = time.time()
    record = train(recipe_of(epoch_size=1, log_interval=1))
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Tensors("train/loss")] == [0, 1, 2]
    assert all(began <= event.wall_time <= time.time() for event in events.Tensors("train/loss"))
    (loss,) = events.Tensors("epoch/loss")
    assert loss.tensor_proto.float_val[0] == pytest.approx(record.final_loss, rel=1e-6)


def test_curves_are_drawn_once_a_minute_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, drawn = [0.0], []
    monkeypatch.setattr(journal, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(journal, "_draw", lambda _, history: drawn.append(len(history)))
    told = journal.Journal(tmp_path)
    history = [{"epoch": epoch, "loss": 1.0, "images_per_second": 1.0, "seconds": 1.0} for epoch in (1, 2, 3, 4, 5)]
    for epoch, at in enumerate((10, 61, 62, 121, 122), 1):
        now[0] = at
        told.epoch(history[:epoch], epoch, last=epoch == 5)
    assert drawn == [2, 5]


def test_json_lines_are_json_where_an_update_overflowed(capsys: pytest.CaptureFixture[str]) -> None:
    told = journal.Journal(None, as_json=True)
    for step, norm in enumerate(told.bar([math.inf, math.nan, 0.5], 3, "epoch 1")):
        record = {"step": step, "epoch": 1, "loss": 1.0, "lr": 0.1, "norm": norm, "images_per_second": 1.0}
        told.step(record, write=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["kind"], line["norm"]) for line in lines] == [("step", None), ("step", None), ("step", 0.5)]


def test_the_time_of_a_step_is_without_that_of_the_states_written_between(
    recipe_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def reading() -> float:
        now[0] += 0.001
        return now[0]

    def slow(*given: Any) -> None:
        save_state(*given)
        now[0] += 1000

    monkeypatch.setattr(engine, "time", SimpleNamespace(perf_counter=reading))
    monkeypatch.setattr(engine, "save_state", slow)
    record = train(recipe_of(recovery_interval=1))
    assert record.ms_per_step is not None and record.ms_per_step < 1000


def test_rows_of_another_kind_are_left_out_of_a_continued_table_of_steps(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    path.write_text("step,epoch\n0,1\n\n²,1\n-1,1\n" + "9" * 5000 + ",1\n1,1\n2,1\n")
    journal.Journal(tmp_path, from_step=2)
    assert path.read_text().splitlines()[1:] == ["0,1", "1,1"]


@pytest.mark.parametrize("content", [b"0,\xff\n", b"0," + b"1" * (11 << 20) + b"\n"], ids=["no text", "a long field"])
def test_a_table_of_steps_that_no_run_wrote_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "steps.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not the table of steps that a run writes"):
        journal.Journal(tmp_path, from_step=2)
    assert path.read_bytes() == content


def test_pipes_among_the_images_count_as_unreadable(recipe_of: Any, tmp_path: Path) -> None:
    for split in ("train", "val"):
        os.mkfifo(tmp_path / "data" / split / "class1" / "pipe.png")
    record = train(recipe_of(epoch_size=1, val_while_train=True))
    assert record.unreadable == [f"{tmp_path}/data/train/class1/pipe.png (not a file)"]
    assert record.eval_samples == 9
    with pytest.raises(InputError, match=r"1 images cannot be read: .*pipe\.png"):
        train(recipe_of("strict", max_corrupt=0))


class Watched(Recipe):
    """A recipe that remembers which of its keys were asked for."""

    asked: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        Watched.asked.add(name)
        return super().__getattribute__(name)


def test_every_key_is_used_refused_or_listed(recipe_of: Any, tmp_path: Path, least_architecture: str) -> None:
    first = train(recipe_of("teacher", epoch_size=1, num_samples=16))
    stored = str(tmp_path / "teacher" / (first.checkpoint or ""))
    everything = {
        "epoch_size": 2,
        "num_samples": 16,
        "ema": True,
        "val_while_train": True,
        "mixup": 0.8,
        "cutmix": 1.0,
        "re_prob": 0.5,
        "clip_grad": True,
        "teacher": least_architecture,
        "teacher_ckpt": stored,
        "distillation_type": "soft",
        "warmup_epochs": 1,
    }
    Watched.asked.clear()
    train(Watched(**recipe_of("all", **everything).model_dump(exclude_unset=True)))
    score(
        Watched(**recipe_of(ckpt_path=stored).model_dump(exclude_unset=True)),
        stored_network(recipe_of(ckpt_path=stored)).network,
        classes=["class0", "class1", "class2"],
    )
    for scheduler in get_args(Scheduler):
        learning_rates(Watched(model=least_architecture, scheduler=scheduler, warmup_epochs=0, epoch_size=4), 2)
    listed = {key for keys, applies, _ in WITHOUT_EFFECT if applies(Recipe(model=least_architecture)) for key in keys}
    only = set(ONLY_VALUE)
    missing = set(Recipe.model_fields) - Watched.asked
    assert missing <= listed | only, missing - listed - only


def test_what_a_loaded_network_brings_along_is_a_recipe(least_architecture: str) -> None:
    from xcit_hub.models import create_model
    from xcit_hub.variants import Preprocessing

    wanted = Preprocessing(image_size=96, crop_pct=0.9, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    recipe = load_recipe(None, settings_of(create_model(least_architecture, num_classes=4, init=False), wanted))
    assert recipe.preprocessing.image_size == 96
    np.testing.assert_allclose(recipe.preprocessing.mean, wanted.mean)
    assert recipe.num_classes == 4


def test_a_class_that_too_few_samples_leave_out_is_named(recipe_of: Any) -> None:
    from xcit_hub.models import create_model
    from xcit_hub.training.inputs import train_data
    from xcit_hub.training.notes import notes_of

    recipe = recipe_of(num_samples=2, batch_size=2)
    source, _ = train_data(recipe, Worker())
    network = create_model(recipe.model, num_classes=3, init=False)
    (said,) = (note for note in notes_of(recipe, source, network, Worker()) if note.startswith("not trained"))
    idle = ({"class0", "class1", "class2"} - {source.classes[label] for label in source.labels}).pop()
    assert said.endswith(f"no image of them: {idle}")


def test_a_rank_table_left_in_the_shell_is_said_where_one_process_trains(recipe_of: Any, monkeypatch) -> None:
    from xcit_hub.models import create_model
    from xcit_hub.training.inputs import train_data
    from xcit_hub.training.notes import notes_of

    monkeypatch.setenv("RANK_TABLE_FILE", "rank_table_8pcs.json")
    monkeypatch.setenv("RANK_ID", "0")
    recipe = recipe_of(batch_size=2)
    source, _ = train_data(recipe, Worker())
    network = create_model(recipe.model, num_classes=3, init=False)
    wanted = "distribute is off: this process trains alone, though the variables of a rank table are set"
    assert wanted in notes_of(recipe, source, network, Worker())


@pytest.mark.parametrize(("batches", "count"), [(10, "2 batches change"), (9, "batch changes"), (8, None)])
def test_batches_that_no_update_takes_are_told(recipe_of: Any, batches: int, count: str | None) -> None:
    from xcit_hub.training.notes import left_over

    said = left_over(recipe_of(epoch_size=1, gradient_accumulation_steps=4), batches)
    wanted = f"the last {count} nothing: an update takes 4 batches, and the run has {batches}"
    assert said == ([] if count is None else [wanted])
