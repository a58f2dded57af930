from __future__ import annotations

from pathlib import Path

import pytest

from xcit_hub.errors import InputError
from xcit_hub.exporters import mindir

pb2 = pytest.importorskip("mindspore.train.mind_ir_pb2")


@pytest.fixture
def model():
    made = pb2.ModelProto()
    made.graph.name = "network"
    parameter = made.graph.parameter.add()
    parameter.name, parameter.raw_data = "weight", b"..Custom..kernels.so" + bytes(Path.home())
    return made


def test_what_a_file_says_of_itself_is_read_again(model) -> None:
    mindir.tell(model, {"a": "1", "b": "zwei, 三"})
    again = pb2.ModelProto()
    again.ParseFromString(model.SerializeToString())
    assert mindir.told(again) == {"a": "1", "b": "zwei, 三"}


def test_values_are_not_taken_for_names(model) -> None:
    mindir._refuse_foreign(model)
    assert model.graph.parameter[0].raw_data  # and are still there


@pytest.mark.parametrize("named", ["Custom", "libkernels.so", str(Path(mindir.__file__).parents[1] / "kernels")])
def test_a_graph_that_names_a_compiled_operation_or_a_folder_of_this_machine_is_refused(model, named: str) -> None:
    node = model.graph.node.add()
    node.op_type, node.name = named, "node"
    with pytest.raises(InputError, match="which other machines do not have"):
        mindir._refuse_foreign(model)
