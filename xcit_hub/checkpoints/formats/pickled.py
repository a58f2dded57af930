"""A pickle read as data: no module is imported, nothing is called, whatever it asks for.

A pickle is a program for a small stack machine. This machine has only the instructions that build tables, lists and
numbers; where the program names a class or function it puts down that name, and where it would call one, the name with
its arguments (:class:`Made`). What PyTorch writes is then recognised by these names, and any that is not in the
tables of ``pickle_names.py`` is refused before anything is made of it.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any

from xcit_hub.checkpoints.formats.pickle_names import (
    RENAMED,
    RENAMED_MODULES,
    TABLES,
    TENSOR_ARGUMENTS,
    is_data,
    is_storage,
)
from xcit_hub.errors import first_line

# More than any checkpoint needs: the largest trainers' have some hundred thousand.
_MOST_INSTRUCTIONS = 5_000_000
_MOST_COPIED = 256 << 20  # letters, bytes and sixteenths of entries: what is named once can be copied again and again
_PARAMETER = "torch.nn.parameter.Parameter"


class PickleError(ValueError):
    """What is wrong with a pickle, in words."""


class CodeError(PickleError):
    """It asks for a class or function that is not plain data; the message is its name."""


@dataclass(frozen=True)
class Name:
    """A class or function by its name, which is all that is known of it."""

    text: str


@dataclass
class Made:
    """What calling ``name`` with ``arguments`` would have given. ``state`` is what it was told afterwards."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, eq=False)
class Reference:
    """What the pickle leaves outside of itself: in PyTorch's files, a storage."""

    identity: Any


@dataclass(eq=False)
class Table(dict[Any, Any]):
    """A table of some class of its own, read as a table."""

    name: str = ""
    state: Any = field(default=None)


@dataclass
class Described:
    """What a pickle describes, and every tensor and reference in it, wherever they stand."""

    root: Any
    tensors: list[Made]
    references: list[Reference]


def read(stream: IO[bytes]) -> Described:
    """Return what one pickle describes, and leave the stream behind its end.

    Raises:
        CodeError: it asks for what is not plain data.
        PickleError: it is not a whole pickle, or larger than any checkpoint's.
    """
    machine = _Machine()
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
            if count > _MOST_INSTRUCTIONS:
                raise PickleError("it has more instructions than any checkpoint needs")
            if machine.step(instruction.name, argument):
                return machine.result()
    except PickleError:
        raise
    except (ValueError, LookupError, TypeError, OverflowError, AttributeError, EOFError, RecursionError) as error:
        raise PickleError(f"it is not a pickle of plain data ({first_line(error)})") from error
    raise PickleError("it ends before its end mark")


def names_in(stream: IO[bytes], most: int = 100_000) -> set[str]:
    """Return the classes and functions, and the short texts, that a pickle names, as far as it can be read."""
    found: set[str] = set()
    try:
        for count, (_, argument, _) in enumerate(pickletools.genops(stream)):
            if isinstance(argument, str) and len(argument) < 200:
                found.add(argument.replace(" ", "."))
            if count > most:
                break
    except Exception:  # what cannot be read names nothing more
        return found
    return found


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.renamed: set[tuple[int, str]] = set()  # keys that have another name here, by their tables
        self.tensors: list[Made] = []
        self.references: list[Reference] = []
        self.copied = 0

    def step(self, instruction: str, argument: Any) -> bool:
        """Do one instruction; whether it was the last."""
        if instruction in ("STRING", "BINSTRING", "SHORT_BINSTRING"):  # Python 2's, which PyTorch reads as UTF-8
            self.stack.append(argument.encode("latin-1").decode("utf-8"))
        elif instruction in _PUSHES:
            self.stack.append(argument)
        elif instruction in _CONSTANTS:
            self.stack.append(_CONSTANTS[instruction]())
        elif instruction in _STEPS:
            _STEPS[instruction](self, argument)
        elif instruction not in ("PROTO", "FRAME", "STOP"):
            raise PickleError(f"it has the instruction {instruction}, which no checkpoint needs")
        return instruction == "STOP"

    def result(self) -> Described:
        if self.marks or len(self.stack) != 1:
            raise PickleError("it ends in the middle of something")
        return Described(self.stack.pop(), self.tensors, self.references)

    def since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def make_tuple(self, _: Any) -> None:
        items = tuple(self.since_mark())
        self.stack.append(items)

    def make_short_tuple(self, length: int) -> None:
        items = tuple(self.stack[-length:])
        if len(items) != length:
            raise PickleError("its stack is empty")
        del self.stack[-length:]
        self.stack.append(items)

    def make_list(self, _: Any) -> None:
        items = self.since_mark()
        self.stack.append(items)

    def make_dict(self, _: Any) -> None:
        items = self.since_mark()
        self.stack.append({})
        self.add_pairs(items)

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        self.extend([item])

    def appends(self, _: Any) -> None:
        self.extend(self.since_mark())

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Table):  # a list of some class of its own
            target.update({len(target) + index: item for index, item in enumerate(items)})
        elif not isinstance(target, Made):
            raise PickleError("it appends to what is not a list")

    def set_item(self, _: Any) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self.add_pairs([key, value])

    def set_items(self, _: Any) -> None:
        self.add_pairs(self.since_mark())

    def add_pairs(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise PickleError("it sets entries of what is not a table")
        self.fill(target, zip(items[::2], items[1::2], strict=True))

    def fill(self, target: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
        for key, value in pairs:
            name = _key(key, len(target))
            if name in target and (name != key or (id(target), name) in self.renamed):
                raise PickleError("two of its keys would have one name")
            if name != key:
                self.renamed.add((id(target), name))
            target[name] = value

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push_name(module, name)

    def stack_name(self, _: Any) -> None:
        name = self.stack.pop()
        module = self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError("it names something by what is not text")
        self.push_name(module, name)

    def push_name(self, module: str, name: str) -> None:
        text = RENAMED.get(f"{module}.{name}", f"{RENAMED_MODULES.get(module, module)}.{name}")
        if not is_data(text):
            raise CodeError(text)
        self.stack.append(Name(text))

    def call(self, _: Any) -> None:
        arguments = self.stack.pop()
        called = self.stack.pop()
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise PickleError("it calls what is not a name")
        for argument in arguments:
            if isinstance(argument, str | bytes | list | dict):
                self.copied += len(argument) * (1 if isinstance(argument, str | bytes) else 16)
        if self.copied > _MOST_COPIED:
            raise PickleError("it copies more than any checkpoint holds")
        if called.text in TABLES:
            made: Any = self.table(called.text, arguments)
        else:
            made = _value(called.text, arguments)
        if isinstance(made, Made) and made.name in TENSOR_ARGUMENTS:
            self.tensors.append(made)
        self.stack.append(made)

    def table(self, name: str, arguments: tuple[Any, ...]) -> Table:
        table = Table(name=name)
        for argument in arguments:
            if isinstance(argument, dict):
                table.update(argument)
            elif isinstance(argument, list | tuple):
                if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in argument):
                    raise PickleError(f"it makes {name} of what are not pairs")
                self.fill(table, ((pair[0], pair[1]) for pair in argument))
            elif not isinstance(argument, Name | Made | None):  # a default's maker is one of these
                raise PickleError(f"it makes {name} of what is no table")
        return table

    def new(self, _: Any) -> None:
        """Make an object of a class, as ``__new__`` does: a table's is empty, whatever it is given."""
        arguments, called = self.stack[-1], self.stack[-2]
        text = called.text if isinstance(called, Name) else ""
        if (text in TABLES and arguments != ()) or (text in TENSOR_ARGUMENTS and text != _PARAMETER):
            raise PickleError(f"it makes an object of {text} in another way than Python does")
        self.call(None)

    def new_with_names(self, _: Any) -> None:
        if self.stack.pop() != {}:
            raise PickleError("it makes an object with arguments by name, which no checkpoint needs")
        self.new(None)

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Table):
            target.state = state
            if isinstance(state, dict) and not target.name.startswith("collections."):
                target.update(state)
        elif isinstance(target, Made) and target.name not in TENSOR_ARGUMENTS:
            target.state = state
        else:
            raise PickleError("it sets the state of what has none")

    def refer(self, _: Any) -> None:
        self.references.append(Reference(self.stack.pop()))
        self.stack.append(self.references[-1])


def tensor(name: str, arguments: tuple[Any, ...]) -> Made:
    """Return that a tensor, or what stands around one, is made by ``name``.

    Raises:
        PickleError: PyTorch makes none so.
    """
    if len(arguments) not in TENSOR_ARGUMENTS.get(name, ()):
        raise PickleError(f"it calls {name} with {len(arguments)} arguments, as PyTorch never does")
    return Made(name, arguments)


def _value(name: str, arguments: tuple[Any, ...]) -> Any:
    if name in TENSOR_ARGUMENTS:
        return tensor(name, arguments)
    if is_storage(name):
        raise PickleError(f"it calls {name}, as PyTorch never does")
    if name == "builtins.getattr" and not (
        len(arguments) == 2 and isinstance(arguments[0], Name) and arguments[0].text in TABLES
    ):
        raise CodeError(name)
    if name == "_codecs.encode" and len(arguments) == 2 and arguments[1] == "latin1":
        return str(arguments[0]).encode("latin1")
    if name in ("builtins.set", "builtins.frozenset") and arguments and isinstance(arguments[0], list):
        return list(arguments[0])
    if name == "torch.Size" and arguments:
        return arguments[0]
    return Made(name, arguments)


def _key(key: Any, place: int) -> Any:
    """A key that can be part of a name: what is not text or a number of ordinary size is called by its place."""
    if isinstance(key, str):
        return printable(key)
    if isinstance(key, float | None) or (isinstance(key, int) and abs(key) < 1 << 64):
        return key
    return f"({type(key).__name__} {place})"


def printable(text: str) -> str:
    """Return text that every encoding of Unicode can hold: a pickle can have halves of characters."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text  # itself: a key may stand in every table


_PUSHES = frozenset(
    {
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "FLOAT",
        "BINFLOAT",
    }
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": lambda machine, _: machine.make_short_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_short_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_short_tuple(3),
    "LIST": _Machine.make_list,
    "FROZENSET": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.new,
    "NEWOBJ_EX": _Machine.new_with_names,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.refer,
}
