from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import Any

import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore.mindrecord import FileWriter
from PIL import Image

from xcit_hub.data.batches import EvalBatches, TrainBatches, Worker
from xcit_hub.data.mixing import Mixing
from xcit_hub.data.sources import open_source
from xcit_hub.errors import InputError

IMAGENET = {"label": {"type": "int32"}, "image": {"type": "bytes"}, "file_name": {"type": "string"}}
CIFAR = {"id": {"type": "int64"}, "label": {"type": "int64"}, "data": {"type": "bytes"}}


def encoded(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_records(path: Path, count: int, shards: int = 1, schema: Any = None, broken: tuple[int, ...] = ()) -> None:
    """Images whose colour is their number, in the columns that MindSpore's own converters write."""
    schema = schema or IMAGENET
    writer = FileWriter(str(path), shard_num=shards, overwrite=True)
    writer.add_schema(schema, "images")
    values = {
        "label": lambda number: number % 3,
        "image": lambda number: b"no image" if number in broken else encoded(number),
        "file_name": lambda number: f"{number}.png",
        "id": lambda number: number,
        "words": lambda number: "a word",
    }
    values["data"] = values["image"]
    writer.write_raw_data([{name: values[name](number) for name in schema} for number in range(count)])
    writer.commit()


class Small:
    shape = (3, 8, 8)

    def cut(self, image: Image.Image, *_: object) -> Image.Image:
        return image.resize((8, 8))

    def finish(self, image: Image.Image, *rest: Any) -> None:
        rest[-1][:] = np.asarray(image).transpose(2, 0, 1)


view = Small()


@pytest.mark.parametrize(("shards", "schema"), [(1, IMAGENET), (3, IMAGENET), (1, CIFAR)], ids=str)
def test_every_record_is_one_image_with_its_label_and_its_place(tmp_path: Path, shards: int, schema: Any) -> None:
    write_records(tmp_path / "train.mindrecord", 11, shards, schema)
    source = open_source("mindrecord", tmp_path, "train", train=True)
    assert source.classes == ["0", "1", "2"]
    colours = [source.open(index).getpixel((0, 0))[0] for index in range(11)]
    assert sorted(colours) == list(range(11))
    assert source.labels.tolist() == [colour % 3 for colour in colours]
    wanted = [7, 2, 10, 2]
    assert [opener().getpixel((0, 0))[0] for opener in source.in_turn(wanted)] == [colours[index] for index in wanted]
    # How MindSpore deals rows out to shards differs from time to time; a name must lead to its row all the same.
    for index in range(11):
        file, _, row = source.name(index).rpartition("#")
        rows = ds.MindDataset([file], columns_list=["label"], shuffle=False).create_tuple_iterator(output_numpy=True)
        assert next(islice(rows, int(row), None))[0] == source.labels[index]
    assert len({source.name(index) for index in range(11)}) == 11


def test_a_folder_of_records_is_a_split_too(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    write_records(tmp_path / "val" / "anything.mindrecord", 4, 2)
    assert len(open_source("mindrecord", tmp_path, "val", train=False).labels) == 4


def test_a_split_in_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot list the folder: No such file or directory") as caught:
        open_source("mindrecord", tmp_path, "sub/train", train=True)
    assert caught.value.where == str(tmp_path / "sub")


@pytest.mark.parametrize("workers", [1, 2])
def test_training_and_evaluation_see_every_record_once_on_any_number_of_workers(tmp_path: Path, workers: int) -> None:
    write_records(tmp_path / "train.mindrecord", 11, 2)
    trained: list[int] = []
    evaluated: list[int] = []
    for rank in range(workers):
        source = open_source("mindrecord", tmp_path, "train", train=True)
        worker = Worker(rank, workers)
        training = TrainBatches(
            source, view, classes=3, batch_size=2, seed=1, mixing=Mixing(0, 0, 1, 0.5), drop_remainder=False,
            worker=worker, threads=2,
        )  # fmt: skip
        for batch in training.epoch(0):
            np.testing.assert_array_equal(batch.targets.argmax(1), batch.images[:, 0, 0, 0] % 3)
            trained += batch.images[:, 0, 0, 0].astype(int).tolist()
        for images, _, counts in EvalBatches(source, view, batch_size=4, worker=worker):
            evaluated += images[counts][:, 0, 0, 0].astype(int).tolist()
    assert sorted(evaluated) == list(range(11))
    assert set(trained) == set(range(11))
    assert len(trained) == (12 if workers == 2 else 11), "as torch's DistributedSampler: one image is repeated"


def test_a_record_that_is_no_image_is_named_and_replaced(tmp_path: Path) -> None:
    write_records(tmp_path / "train.mindrecord", 6, broken=(4,))
    source = open_source("mindrecord", tmp_path, "train", train=True)
    with pytest.raises(InputError, match=r"train\.mindrecord#4"):
        source.open(4)
    batches = TrainBatches(source, view, classes=3, batch_size=6, seed=1, mixing=Mixing(0, 0, 1, 0.5))
    (batch,) = batches.epoch(0)
    assert batch.unreadable.max() == 4
    assert len(set(batch.indices.tolist())) == 5
    evaluation = EvalBatches(source, view, batch_size=6)
    ((_, _, counts),) = evaluation
    assert counts.sum() == 5
    assert evaluation.unreadable == [4]


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"label": {"type": "int32"}, "words": {"type": "string"}}, r"image or data of type bytes; .*words \(string\)"),
        ({"image": {"type": "bytes"}, "id": {"type": "int64"}}, "label or fine_label of type int32 or int64"),
    ],
    ids=["no image", "no label"],
)
def test_a_strange_schema_is_told_column_by_column(tmp_path: Path, schema: Any, says: str) -> None:
    write_records(tmp_path / "train.mindrecord", 2, schema=schema)
    with pytest.raises(InputError, match=says):
        open_source("mindrecord", tmp_path, "train", train=True)


def test_a_set_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    write_records(tmp_path / "train.mindrecord", 9, 3)
    with pytest.raises(InputError, match="No MindRecord file"):
        open_source("mindrecord", tmp_path, "val", train=False)
    (tmp_path / "train.mindrecord2").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"mindrecord2"):
        open_source("mindrecord", tmp_path, "train", train=True)
    (tmp_path / "one.mindrecord").write_bytes(b"no record at all")
    with pytest.raises(InputError, match="cannot be read"):
        open_source("mindrecord", tmp_path, "one", train=True)
    (tmp_path / "both").mkdir()
    for name in ("a", "b"):
        write_records(tmp_path / "both" / f"{name}.mindrecord", 2)
    with pytest.raises(InputError, match="more than one set"):
        open_source("mindrecord", tmp_path, "both", train=True)


def test_records_that_break_off_are_an_error_and_no_page_of_text(tmp_path: Path) -> None:
    path = tmp_path / "train.mindrecord"
    write_records(path, 6)
    source = open_source("mindrecord", tmp_path, "train", train=True)
    path.write_bytes(path.read_bytes()[:100])
    batches = TrainBatches(source, view, classes=3, batch_size=6, seed=1, mixing=Mixing(0, 0, 1, 0.5))
    with pytest.raises(InputError, match="cannot be read") as caught:
        list(batches.epoch(0))
    assert len(str(caught.value)) < 500
