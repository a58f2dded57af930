"""What 0.1.0 called otherwise can be imported for one release, and says where it stands now."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from xcit_hub.deprecated import MODULES, NAMES, REMOVED_IN, RENAMED
from xcit_hub.errors import HubError, InputError

# What somebody may have imported from there.
_NAMES = {
    "cards.rules": [],
    "cards.run_record": ["RunRecord", "Versions"],
    "converters.checkpoint": ["read", "write", "StoredTensor"],
    "converters.dialects": ["LAYOUTS", "from_ours", "shapes_of"],
    "converters.formats": [],
    "converters.formats.mindspore": ["read", "write"],
    "converters.formats.pytorch": ["read", "write"],
    "converters.formats.safetensors": ["read", "write"],
    "converters.hashing": [],
    "converters.inspection": ["inspect", "Inspection"],
    "converters.numbers": [],
    "converters.tensor": ["DTYPES", "StoredTensor"],
    "converters.weights": ["load", "Weights"],
    "xcit_hub.cli.hub": ["cache_list", "load", "publish", "whoami"],
    "xcit_hub.conversion": ["Options"],
    "xcit_hub.hub.mixin": ["XCiT"],
    "xcit_hub.models.fused": [],
    "xcit_hub.models.kernels": ["UnfoldedConv2d", "device_target"],
    "xcit_hub.models.layers": ["XCA", "LPI", "ClassAttention"],
    "xcit_hub.models.native": [],
    "xcit_hub.models.native.build": ["SWITCH", "library"],
    "xcit_hub.models.native.cells": [],
    "xcit_hub.models.native.operations": [],
    "xcit_hub.models.stacked": ["stacked"],
    "xcit_hub.training.checkpoints": ["STATE", "load_state", "save_checkpoint"],
    "xcit_hub.training.optimizer": ["AdamW", "ParameterSetting", "parameter_settings"],
}


def test_the_names_of_every_moved_module_are_looked_for() -> None:
    assert _NAMES.keys() == MODULES.keys()


@pytest.mark.parametrize("old", MODULES)
def test_a_moved_module_is_imported_under_its_old_name_and_says_the_new_one(old: str, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{MODULES[old][0]} .*{REMOVED_IN}") as caught:
        module = importlib.import_module(old)
    assert len([warning for warning in caught if old in str(warning.message)]) == 1
    homes = [importlib.import_module(place) for place in MODULES[old]]
    for name in _NAMES[old]:
        found = getattr(module, name)
        assert any(getattr(home, name, None) is found for home in homes), name
    with pytest.raises(AttributeError, match=old):
        _ = module.never_there


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NAMES.items() for name in names])
def test_a_moved_name_is_found_where_it_was_and_says_where_it_is(module: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"{NAMES[module][name]}\.{name} .*{REMOVED_IN}"):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(NAMES[module][name]), name)


@pytest.mark.parametrize(("module", "name"), RENAMED)
def test_a_name_that_is_called_otherwise_works_under_its_old_one(module: str, name: str, tmp_path: Path) -> None:
    place, new, _ = RENAMED[module, name]
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{name} is {place}\.{new} .*{REMOVED_IN}"):
        found = getattr(importlib.import_module(module), name)
    _AS_IT_WAS[name](found, tmp_path)


def _is_timms_configuration(from_timm: Any, _: Path) -> None:
    said = {"architecture": "xcit_nano_12_p16_224", "num_classes": 1000, "pretrained_cfg": {"crop_pct": 0.5}}
    config = from_timm(json.dumps(said), where="a place")
    assert (config.architecture, config.dialect) == ("xcit_nano_12_p16_224", "paper")
    assert config.preprocessing.crop_pct == 0.5
    with pytest.raises(HubError, match="where: a place"):
        from_timm(json.dumps({"architecture": "resnet50"}), where="a place")


def _converts(convert_one: Any, folder: Path) -> None:
    from converters.convert import Options

    (folder / "x.ckpt").write_bytes(b"")
    with pytest.raises(InputError, match="same file"):
        convert_one(str(folder / "x.ckpt"), folder / "x.ckpt", Options(to="timm"), verify=False)


def _are_images(kinds: Any, _: Path) -> None:
    assert str in get_args(kinds)


def _is_mindcvs_tag(tag: Any, _: Path) -> None:
    assert tag == "ms_in1k"


_AS_IT_WAS: dict[str, Callable[[Any, Path], None]] = {
    "convert_one": _converts,
    "from_timm": _is_timms_configuration,
    "Picture": _are_images,
    "TAG": _is_mindcvs_tag,
}


def test_a_name_of_a_moved_module_that_is_called_otherwise_works_too(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning):
        _converts(importlib.import_module("xcit_hub.conversion").convert_one, tmp_path)


def test_the_warning_points_at_the_line_that_imports() -> None:
    code = "import converters.tensor\nfrom converters.formats import mindspore\nfrom converters import numbers\n"
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if "DeprecationWarning" in line]
    assert [line.split(":")[:2] for line in lines] == [
        ["<string>", "1"],
        ["<string>", "2"],
        ["<string>", "2"],
        ["<string>", "3"],
    ]


def test_what_never_was_is_unknown_still() -> None:
    for module in NAMES:
        with pytest.raises(AttributeError, match=module):
            _ = importlib.import_module(module).never_there
    with pytest.raises(ModuleNotFoundError, match=r"converters\.nothing"):
        importlib.import_module("converters.nothing")
