"""What a user is told is said in three parts: what was wrong, where, and what to do. By the source, all of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from xcit_hub import errors
from xcit_hub.errors import XcitHubError

ROOT = Path(errors.__file__).parents[1]
SOURCES = sorted(path for folder in ("xcit_hub", "converters", "cards") for path in (ROOT / folder).rglob("*.py"))

# The steps that a file's tensors go through know the tensors alone: `weights_of` and `segmenter.load` raise what they
# say again with the file. What they say to do is theirs.
PLACED_BY_THE_CALLER = {
    f"xcit_hub/checkpoints/{name}.py"
    for name in (
        "beside",
        "dialect",
        "identify",
        "mmseg_config",
        "mmseg_images",
        "segmenter",
        "strings",
        "translate",
        "unwrap",
    )
}


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def test_every_error_says_where_it_is_and_what_to_do(trees: dict[str, ast.Module]) -> None:
    classes = _classes(trees)
    assert len(classes) > 12
    constructed, lacking, placed = 0, [], set()
    for file, tree in trees.items():
        for call in _constructions(tree, classes):
            constructed += 1
            missing = {"where", "fix"} - _said(call)
            if missing == {"where"} and file in PLACED_BY_THE_CALLER:
                placed.add(file)
            elif missing:
                lacking.append(f"{file}, line {call.lineno}: no {' and no '.join(sorted(missing))}")
    assert constructed > 550
    assert not lacking, "\n".join(lacking)
    assert placed == PLACED_BY_THE_CALLER, "a file that says it all itself needs no exception"


def test_an_error_without_its_remedy_would_be_found() -> None:
    classes: dict[str, ast.ClassDef | None] = {"XcitHubError": None, "InputError": None, "OwnError": _class(_OWN)}
    source = (
        "InputError('x')\nerrors.InputError('x', where=None, fix='y')\nOwnError('x')\nInputError('x', **{'fix': 'y'})\n"
    )
    found = [_said(call) for call in _constructions(ast.parse(source), classes)]
    assert found == [set(), {"fix"}, set()]
    found = [_said(call) for call in _constructions(ast.parse(_OWN), classes)]
    assert found == [{"fix"}], "a class with a constructor of its own says it there"


@pytest.mark.parametrize("letter", ["n", " ", "n ", "\u00e9"])
def test_a_message_stays_readable_whatever_a_file_calls_its_tensors(letter: str) -> None:
    name = letter * (1_000_000 // len(letter))
    error = XcitHubError(f"The file has no {name}, which it needs.", where=name, fix=f"Rename {name}.")
    assert len(str(error)) < 35_000
    assert str(error).startswith(f"The file has no {letter * 200}") and "letters)" in error.what
    assert error.args == (error.what,)


def test_a_long_name_in_a_sentence_is_cut_alone_and_paths_are_not() -> None:
    path = "/" + "/".join(["folder" * 40] * 16)
    error = XcitHubError(f"There is {'x' * 1_000_000} beside 'head'.", where=path, fix=f"rm {path}")
    assert error.what == f"There is {'x' * 500}… (1,000,000 letters) beside 'head'."
    assert (error.where, error.fix) == (path, f"rm {path}")


def test_no_part_of_a_message_steers_a_terminal() -> None:
    error = XcitHubError("There is \x1b[31mred\x07\u202e.", where="a\x1b]0;title", fix="Say\nthis.\x9b")
    assert str(error).splitlines() == [
        "There is \\x1b[31mred\\x07\\u202e.", "  where: a\\x1b]0;title", "  do:    Say", "this.\\x9b",
    ]  # fmt: skip


def test_the_three_parts_are_printed_each_on_its_line() -> None:
    assert str(XcitHubError("It broke.", where=Path("a/b"), fix="Mend it.")).splitlines() == [
        "It broke.", "  where: a/b", "  do:    Mend it.",
    ]  # fmt: skip


_OWN = "class OwnError(InputError):\n    def __init__(self, what):\n        super().__init__(what, fix='y')\n"


def _class(source: str) -> ast.ClassDef:
    found = ast.parse(source).body[0]
    assert isinstance(found, ast.ClassDef)
    return found


def _classes(trees: dict[str, ast.Module]) -> dict[str, ast.ClassDef | None]:
    """Every class of such errors, by name."""
    found: dict[str, ast.ClassDef | None] = {"XcitHubError": None}
    defined = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    before = 0
    while len(found) > before:
        before = len(found)
        found |= {node.name: node for node in defined if any(_name(base) in found for base in node.bases)}
    return found


def _constructions(tree: ast.Module, classes: dict[str, ast.ClassDef | None]) -> Iterator[ast.Call]:
    """Where such errors are made; of a class with a constructor of its own, where that calls the one above it."""
    own = {name: node for name, node in classes.items() if node is not None and _constructor(node) is not None}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in classes and _name(node.func) not in own:
            yield node
        if isinstance(node, ast.ClassDef) and node.name in own:
            calls = [call for call in ast.walk(node) if isinstance(call, ast.Call) and _name(call.func) == "__init__"]
            assert calls, f"{node.name} does not call the constructor above it"
            yield from calls


def _constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)


def _said(call: ast.Call) -> set[str]:
    given = (word for word in call.keywords if not (isinstance(word.value, ast.Constant) and not word.value.value))
    return {word.arg for word in given if word.arg}


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
