"""JSON of strangers: what says a thing twice is refused by every reader, and not read as its last word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cards.inputs import read_json_object
from xcit_hub import strict_json
from xcit_hub.checkpoints import strings
from xcit_hub.errors import XcitHubError
from xcit_hub.hub import config, metadata, timm_config
from xcit_hub.hub.config import ModelConfig
from xcit_hub.run_record import RunRecord

NANO = "xcit_nano_12_p16_224"
TIMMS = {"architecture": NANO, "num_classes": 10, "model_args": {"in_chans": 3}, "pretrained_cfg": {"crop_pct": 0.9}}
OURS = json.loads(ModelConfig(NANO, "paper").to_json())
SEEN = json.loads(metadata.preprocessing_to_metadata(config.Preprocessing(), 3))


def twice(record: dict, name: str) -> str:
    """Return a record as JSON that says one of its fields a second time, with the same value."""
    text = json.dumps(record)
    (at,) = [index for index in range(len(text)) if text.startswith(f'"{name}": ', index)]
    value = json.dumps(json.JSONDecoder().raw_decode(text[at + len(f'"{name}": ') :])[0])
    return f'{text[:at]}"{name}": {value}, {text[at:]}'


READERS: dict[str, tuple[Callable[[str, Path], object], dict, str]] = {
    "timm's config.json": (lambda text, _: timm_config.read(text), TIMMS, "num_classes"),
    "timm's model_args": (lambda text, _: timm_config.read(text), TIMMS, "in_chans"),
    "timm's pretrained_cfg": (lambda text, _: timm_config.read(text), TIMMS, "crop_pct"),
    "xcit_hub.json": (lambda text, _: config.from_json(text), OURS, "dialect"),
    "xcit_hub.json preprocessing": (lambda text, _: config.from_json(text), OURS, "crop_pct"),
    "a file's own string": (lambda text, _: metadata.preprocessing_from_metadata(text, None), SEEN, "mean"),
    "run.json": (lambda text, path: RunRecord.read(written(path, text)), {"top1": 50.0}, "top1"),
    "a card's facts": (lambda text, path: read_json_object(written(path, text)), {"name": "xcit"}, "name"),
}


def written(folder: Path, text: str) -> Path:
    (folder / "it.json").write_text(text)
    return folder / "it.json"


@pytest.mark.parametrize("kind", READERS)
def test_a_description_that_says_a_field_twice_is_refused_by_its_name(kind: str, tmp_path: Path) -> None:
    read, record, name = READERS[kind]
    read(json.dumps(record), tmp_path)
    with pytest.raises(XcitHubError, match=f"'{name}' twice"):
        read(twice(record, name), tmp_path)


def test_half_a_character_is_refused_and_a_whole_one_is_read() -> None:
    assert strict_json.parsed(json.dumps(["Küche \U0001f600"])) == ["Küche \U0001f600"]
    for text in (r'["\ud83d"]', r'{"\udc00": 1}', r'{"labels": ["a", "\uD83D b"]}'):
        with pytest.raises(ValueError, match="surrogates"):
            strict_json.parsed(text)


def test_a_string_that_says_a_field_twice_says_nothing_that_a_conversion_carries() -> None:
    assert strings.described({strings.PREPROCESSING: twice(SEEN, "crop_pct")}) == {}
