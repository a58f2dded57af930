"""A rank table: which card of which server has which rank, in HCCL's JSON."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from typing import Any

from xcit_hub.doctor.finding import Finding, Machine, shown
from xcit_hub.errors import InputError
from xcit_hub.files import read_bounded

VARIABLES = ("MINDSPORE_HCCL_CONFIG_PATH", "RANK_TABLE_FILE")  # MindSpore reads the first that is set
_LARGEST = 8 << 20  # bytes; one of 1,024 cards has some 100 kB
_LISTED = 5
_DO = "Make it again (hccl_tools.py), or unset the variable and start with msrun, which needs none."


class _WrongError(Exception):
    """What is wrong with a table."""


def rank_table(machine: Machine) -> Iterator[Finding]:
    """Judge the table that the environment names, if it names one."""
    variable = next((name for name in VARIABLES if machine.environment.get(name)), None)
    if variable is None:
        yield Finding("rank table", "ok", "none is named, and msrun needs none")
        return
    named = machine.environment[variable]
    try:
        servers, ranks = _read(machine, named)
        _fits(machine, ranks)
    except _WrongError as wrong:
        yield Finding("rank table", "wrong", f"{variable}={shown(named)}: {wrong}", _DO)
        return
    yield Finding("rank table", "ok", f"{len(ranks)} cards of {servers} servers, in {shown(named)}")


def _read(machine: Machine, named: str) -> tuple[int, list[int]]:
    """Return how many servers there are, and the ranks in their order."""
    try:
        content = read_bounded(machine.at(named), _LARGEST)
        table = json.loads(content.decode("utf-8"))
    except InputError as error:
        raise _WrongError(error.what.rstrip(".")) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of thousands of digits, too deep
        raise _WrongError(f"not JSON ({type(error).__name__})") from error
    if not isinstance(table, dict):
        raise _WrongError("not a JSON object")
    if table.get("status") != "completed":
        raise _WrongError(f"its status is {shown(table.get('status'))}, not 'completed'")
    servers = table.get("server_list")
    if not isinstance(servers, list) or not servers:
        raise _WrongError("no server_list")
    count = table.get("server_count")
    if count is not None and _number(count) != len(servers):
        raise _WrongError(f"server_count is {shown(count)}, and {len(servers)} are listed")
    ranks, places, addresses = [], set(), set()
    for number, server in enumerate(servers):
        where = f"server {number}"
        devices = server.get("device") if isinstance(server, dict) else None
        if not isinstance(devices, list) or not devices:
            raise _WrongError(f"{where} has no device")
        for device in devices:
            rank, place, address = _device(device, where)
            if (number, place) in places:
                raise _WrongError(f"{where} has device_id {place} twice")
            if address in addresses:
                raise _WrongError(f"device_ip {address} stands there twice")
            places.add((number, place))
            addresses |= {address} - {None}
            ranks.append(rank)
    return len(servers), ranks


def _device(device: Any, where: str) -> tuple[int, int, str | None]:
    """Return a device's rank, its number on its server, and its address, which a single server may leave out."""
    if not isinstance(device, dict):
        raise _WrongError(f"a device of {where} is not an object")
    numbers = []
    for key in ("rank_id", "device_id"):
        number = _number(device.get(key))
        if number is None:
            raise _WrongError(f"{key} {shown(device.get(key))} of {where} is not a number")
        numbers.append(number)
    address = device.get("device_ip")
    if address is not None:
        try:
            address = str(ipaddress.ip_address(address if isinstance(address, str) else ""))
        except ValueError as error:
            raise _WrongError(f"device_ip {shown(device['device_ip'])} of {where} is not an address") from error
    return numbers[0], numbers[1], address


def _number(value: Any) -> int | None:
    """Return a count as the format writes it, in a string; numbers themselves are taken, too."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None


def _fits(machine: Machine, ranks: list[int]) -> None:
    """Hold the ranks against each other and against what the environment says of this process."""
    expected = set(range(len(ranks)))
    if set(ranks) != expected:
        absent = sorted(expected - set(ranks))[:_LISTED]
        raise _WrongError(f"{len(ranks)} cards should have ranks 0…{len(ranks) - 1}; without one: {absent}")
    size, rank = (machine.environment.get(name) for name in ("RANK_SIZE", "RANK_ID"))
    if size and _number(size) != len(ranks):
        raise _WrongError(f"RANK_SIZE is {shown(size)}, and {len(ranks)} cards are listed")
    if rank and _number(rank) not in expected:
        raise _WrongError(f"RANK_ID {shown(rank)} is not in it")
