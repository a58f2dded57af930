"""Every kind of answer is held to its model before huggingface_hub's client parses it."""

from __future__ import annotations

import json
import time

import pytest
from hub_server import Fault

from xcit_hub.errors import HubError
from xcit_hub.hub import answers
from xcit_hub.hub.locate import list_hub

SHA1, SHA256 = "a" * 40, "b" * 64
# What is asked → a right answer.
RIGHT = {
    "GET /api/whoami-v2": {"name": "me", "orgs": [{"name": "org"}], "auth": {"accessToken": {"role": "write"}}},
    "GET /api/models": [{"id": "org/name"}],
    "GET /mirror/api/models": [],
    "GET /api/models/org/name": {"id": "org/name", "sha": SHA1, "siblings": []},
    "GET /api/models/org/name/revision/refs%2Fpr%2F1": {"sha": SHA1},
    "POST /api/repos/create": {"url": "https://hub.example.org/org/name"},
    "POST /api/validate-yaml": {"errors": [], "warnings": [{"message": "empty"}]},
    "POST /api/models/org/name/preupload/main": {
        "files": [{"path": "a", "uploadMode": "lfs", "shouldIgnore": False, "oid": SHA256}]
    },
    "POST /api/models/org/name/commit/refs/pr/1": {"commitOid": SHA1, "commitUrl": "https://hub.example.org/x"},
    "POST /org/name.git/info/lfs/objects/batch": {
        "transfer": "multipart",
        "objects": [
            {"oid": SHA256, "size": 9, "actions": {"upload": {"href": "u", "header": {"chunk_size": "5", "1": "v"}}}}
        ],
    },
}


def _checked(asked: str, content: bytes) -> object:
    kind = answers.kind_of(*asked.split(" ", 1))
    assert kind is not None
    return json.loads(answers.checked(kind, content, place="https://hub.example.org", where="x"))


@pytest.mark.parametrize("asked", RIGHT)
def test_a_right_answer_reaches_the_client_and_nothing_else_of_it(asked):
    def grown(value: object) -> object:
        if isinstance(value, dict):
            inner = {name: each if name == "header" else grown(each) for name, each in value.items()}
            return inner | {"unheard_of": [{"deep": None}]}
        return [grown(each) for each in value] if isinstance(value, list) else value

    plain = _checked(asked, json.dumps(RIGHT[asked]).encode())
    assert _checked(asked, json.dumps(grown(RIGHT[asked])).encode()) == plain
    assert _holds(plain, RIGHT[asked])


def _holds(given: object, wanted: object) -> bool:
    if isinstance(wanted, dict):
        return all(name in given and _holds(given[name], each) for name, each in wanted.items())
    if isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(_holds, given, wanted))
    return given == wanted


@pytest.mark.parametrize("asked", RIGHT)
@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"5", b'"x"', b"<html>", b"[" * 100_000, b'{"a":' * 500 + b"1" + b"}" * 500, b"9" * 5000, b"\xff"],
)
def test_an_odd_body_is_one_error_that_names_the_hub(asked, content):
    with pytest.raises(HubError, match=r"^https://hub\.example\.org does not answer as a hub") as caught:
        _checked(asked, content)
    assert caught.value.fix


# Names are looked at by whoever lists them, and remarks are made printable.
MAY_HAVE_ESCAPES = ("GET /api/models", "POST /api/validate-yaml")


@pytest.mark.parametrize("asked", RIGHT)
def test_no_part_of_an_answer_may_be_of_another_kind_or_too_many(asked):
    odds = [{"x": [1]}, -5, 1.5, [None] * 20_000, "x" * 10_000]
    odds += [] if asked in MAY_HAVE_ESCAPES else ["\x1b[31m"]
    tried = 0
    for path in _places(RIGHT[asked]):
        for odd in odds:
            content = json.dumps(_replaced(RIGHT[asked], path, odd)).encode()
            with pytest.raises(HubError, match="does not answer as a hub"):
                _checked(asked, content)
            tried += 1
    assert tried or RIGHT[asked] == []


def _places(value: object, path: tuple = ()) -> list[tuple]:
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        return [place for name, each in entries for place in _places(each, (*path, name))]
    return [path]


def _replaced(value: object, path: tuple, odd: object) -> object:
    if not path:
        return odd
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(value[path[0]], path[1:], odd)
    return copy


def test_a_hubs_remarks_reach_the_terminal_without_control_characters():
    content = b'{"warnings": [{"message": "a\\u001b[31m\\nb"}]}'
    assert _checked("POST /api/validate-yaml", content)["warnings"] == [{"message": "a [31m b"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"error": "no"}', {"error": "no"}),
        (b'{"error": ["a", "b"], "x": 1}', {"error": ["a", "b"]}),
        (b'{"errors": [{"message": "m", "y": 2}]}', {"errors": [{"message": "m"}]}),
        (b"Entry not found", {"error": "Entry not found"}),
        (b"5", {"error": "5"}),
        (b"null", {"error": "null"}),
        (b"[1]", {}),
        (b"<html>", {}),
        (b'{"error": 5}', {}),
        (b"[" * 100_000, {}),
        (b"\xff\xfe", {"error": "��"}),
    ],
)
def test_a_refusal_says_what_can_be_understood(content, said):
    assert json.loads(answers.refusal(content)) == said


@pytest.mark.parametrize("body", [b"5", b"null", b"[1]", b"\xff", b"<html>", b'{"error": {"a": 1}}', b'"busy"'])
def test_a_hub_that_is_busy_in_odd_words_is_asked_again(server, body, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the client's tries
    server.faults = [Fault("GET /api/models$", "answer", 503, times=2, body=body)]
    assert list_hub(server.url) == []
    assert server.faults[0].times == 0
