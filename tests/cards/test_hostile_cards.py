"""A hostile card is refused with a list of faults: nothing runs, and memory and time stay bounded."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cards import hugging_face, mindspore_hub
from cards.card import MAX_BYTES
from cards.check import check, read
from cards.facts import CardYaml, Facts
from cards.faults import UnreadableCardError
from cards.page import html
from xcit_hub.errors import InputError
from xcit_hub.run_record import RunRecord

BOMB = "\n".join(
    ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    + [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
)

HOSTILE = {
    "bomb": BOMB,
    "anchor": "author: &who me\nsummary: x",
    "alias": "author: *who",
    "merge": "base: &base {a: 1}\nother:\n  <<: *base",
    "python object": "summary: !!python/object/apply:os.system ['touch PWNED']",
    "python name": "summary: !!python/name:os.system",
    "python tuple": "summary: !!python/tuple [1, 2]",
    "own tag": "summary: !thing x",
    "yaml tag": "summary: !!binary aGVsbG8=",
    "deep list": "summary: " + "[" * 5000 + "]" * 5000,
    "deep mapping": "summary: " + "{a: " * 5000 + "}" * 5000,
    "deep block": "\n".join("  " * level + "a:" for level in range(200)),
    "many values": "summary: [" + "1," * 30_000 + "]",
    "long": "summary: " + "x" * 200_000,
    "tag in a broken card": "evaluation: -\nsummary: !!python/name:os.system",
    "anchor in a broken card": "evaluation: -\nasset:\n-\n  file-format: &a ckpt",
    "alias in a broken card": "evaluation: -\nauthor: *a",
}


def in_both_forms(fields: str) -> list[str]:
    return [f"# t\n\n---\n{fields}\n---\n\nprose\n", f"---\n{fields}\n---\n\n# t\n"]


@pytest.mark.parametrize("fields", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_yaml_is_refused_with_its_faults(fields, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in in_both_forms(fields):
        started = time.process_time()
        faults = check(text)
        errors = [fault for fault in faults if fault.severity == "error"]
        assert errors
        with pytest.raises(UnreadableCardError) as caught:
            read(text)
        assert caught.value.faults
        assert time.process_time() - started < 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "line", "message"),
    [
        ("author: me\nsummary: !!python/name:os.system", 5, "python/name:os.system"),
        ("author: me\nlicense: x\nsummary: &a x", 6, "&a"),
        ("author: *who", 4, "*who"),
    ],
)
def test_the_fault_names_what_was_refused_and_where(fields, line, message):
    faults = check(in_both_forms(fields)[0])
    assert any(fault.line == line and message in fault.message for fault in faults)


def test_digits_without_end_are_text_and_not_a_number():
    digits = "9" * 20_000
    for text in in_both_forms(f"future: {digits}\naccuracy: {digits}"):
        metadata = read(text).metadata
        assert metadata.model_extra == {"future": digits}
        assert metadata.accuracy == digits


@pytest.mark.parametrize(
    "text", ["", "\n", "---", "---\n---", "# t", "# t\n---\n---\n", "---\n- a\n---\n", "\x00\n\x00"]
)
def test_next_to_nothing_is_a_list_of_faults(text, tmp_path):
    path = tmp_path / "card.md"
    path.write_text(text)
    assert [fault for fault in check(path) if fault.severity == "error"]


def test_bytes_that_are_not_utf8_are_named_with_their_place(tmp_path):
    path = tmp_path / "card.md"
    path.write_bytes(b"# t\n\n---\nauthor: caf\xe9\n---\n")
    (fault,) = check(path)
    assert (fault.line, fault.field) == (4, "file")
    assert "0xe9" in fault.message
    with pytest.raises(UnreadableCardError, match="UTF-8"):
        read(path)


def test_a_file_of_100_megabytes_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "card.md"
    with path.open("wb") as stream:
        stream.truncate(100 << 20)
    code = (
        "import resource, sys; from cards.check import check; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; faults = check(sys.argv[1]); "
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; print(len(faults), after - before, faults[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    count, kibibytes, fault = done.stdout.split(maxsplit=2)
    assert count == "1"
    assert int(kibibytes) < 8 * 1024
    assert f"{MAX_BYTES:,}" in fault


def seconds_of(texts: list[str]) -> float:
    started = time.process_time()
    for text in texts:
        check(text)
        read(text)
    return time.process_time() - started


def check_its_time_grows_with(size: int, texts: Callable[[int], list[str]]) -> None:
    half, whole = (seconds_of(texts(length)) for length in (size // 2, size))
    assert whole < 3.5 * half + 0.5, "of twice the length, whatever the processor; a careless pattern takes four times"


def test_the_largest_card_that_is_read_takes_no_longer_than_it_is_long_and_little_memory():
    line = "| a | b | `c` | ![d](e) | <f> | *g* **h** [i](j) |\n"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check_its_time_grows_with(
        MAX_BYTES // len(line) - 100, lambda lines: [f"# t\n\n---\nauthor: me\n---\n\n{line * lines}"]
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 << 20  # KiB more than this process had held


SLOW_FOR_A_CARELESS_PATTERN = {
    "spaces in a heading": lambda size: f"# a{' ' * size}b",
    "spaces after a heading": lambda size: f"#{' ' * size}",
    "spaces below a table's head": lambda size: f"a | b\n{' ' * size}x",
    "hashes": lambda size: "#" * size,
    "dashes": lambda size: "a | b\n" + "-" * size + "x",
    "bars": lambda size: "a | b\n" + "|" * size,
    "delimiters": lambda size: "a | b\n" + "|-" * (size // 2) + "x",
    "backticks": lambda size: "`" * size,
    "digits": lambda size: "top1acc" * (size // 7),
}


@pytest.mark.parametrize("prose", SLOW_FOR_A_CARELESS_PATTERN.values(), ids=SLOW_FOR_A_CARELESS_PATTERN.keys())
def test_no_line_takes_longer_than_it_is_long(prose):
    def texts(size: int) -> list[str]:
        return [f"# t\n\n---\nauthor: me\n---\n\n{prose(size)}\n", f"---\nauthor: me\n---\n\n{prose(size)}\n"]

    check_its_time_grows_with(600_000, texts)


@pytest.mark.parametrize("line", ["-{}x", "{}x", "a{}x", "asset:{}", "a{}: b"])
def test_no_line_of_a_broken_head_takes_longer_than_it_is_long(line):
    check_its_time_grows_with(60_000, lambda size: in_both_forms(f"evaluation: -\nasset:\n{line.format(' ' * size)}"))


def test_a_comment_with_hostile_json_is_refused():
    for payload in ('{"results": 5', '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"tags": "\\ud800"'):
        text = f"# t\n\n---\nauthor: me\n---\n\n<!-- hugging-face {payload} -->\nprose\n"
        assert any((fault.line, fault.field, fault.severity) == (7, "hugging-face", "error") for fault in check(text))
        with pytest.raises(UnreadableCardError):
            read(text)


def test_a_model_index_that_is_none_is_kept_and_reported():
    for index in ("5", "[]", "[{}]", "[{name: a, results: [{}]}]", "{a: b}", "[{name: a, results: 3}]"):
        text = f"---\nlicense: mit\nmodel-index: {index}\n---\n\n# t\n"
        assert any(fault.field == "model-index" for fault in check(text)), index
        card = hugging_face.read(text)
        assert hugging_face.read(hugging_face.write(card)).metadata == card.metadata


def test_mistyped_fields_of_a_hugging_face_card_do_not_stop_the_reader():
    fields = "tags: {a: b}\nlicense: [a, b]\nlibrary_name: [x]\nmindspore-hub: text\ndatasets: 5\nlanguage:\n"
    text = f"---\n{fields}---\n\n# t\n"
    card = hugging_face.read(text)
    assert card.metadata.tags == ["{a: b}"]
    assert card.metadata.license_id == "[a, b]"
    assert hugging_face.read(hugging_face.write(card)).metadata == card.metadata


def test_a_card_cannot_put_script_or_foreign_links_into_the_page():
    prose = (
        "<script>alert(1)</script>\n\n<img src=x onerror=alert(1)> text <b onclick=alert(1)>b</b>\n\n"
        "[a](javascript:alert(1)) ![i](https://example.org/pixel.png)\n\n| <script>x</script> |\n|---|\n| y |\n"
    )
    text = f"# <script>alert(2)</script>\n\n---\nauthor: <script>alert(3)</script>\n'<b>': x\n---\n\n{prose}"
    page = html(mindspore_hub.read(text))
    assert "<script" not in page
    assert "onerror" not in page and "onclick" not in page
    assert 'href="javascript' not in page
    assert "<img" not in page and "src=" not in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"top1": 101}', b'{"cards": "many"}', b"[" * 200_000])
def test_a_run_record_that_is_none_says_what_is_wrong(content, tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        RunRecord.read(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: &x 1", "&x"),
        ("author: !!python/name:os.system", "python/name"),
        ("unheard_of: 1", "unheard_of"),
        ("accuracy: [{top1: 120, source: me}]", "top1"),
        ("fine_tunable: perhaps", "fine_tunable"),
        ("accuracy: [{top1: 60, top5: 50, source: me}]", "cannot exceed"),
        ("author: [", "YAML"),
        ("author: a\nauthor: b", "given twice"),
    ],
)
def test_a_card_yaml_that_is_none_says_what_is_wrong(content, message, tmp_path):
    path = tmp_path / "card.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        CardYaml.read(path)


def test_facts_that_are_none_say_what_is_wrong(tmp_path: Path):
    path = tmp_path / "facts.json"
    path.write_text('{"name": "x"}')
    with pytest.raises(InputError, match="architecture"):
        Facts.read(path)
