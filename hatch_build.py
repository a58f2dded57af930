"""Compile the operations when the package is built: into the source tree, and into a wheel for one kind of machine.

``XCIT_HUB_MACHINE=aarch64`` makes a wheel for that machine, with the compiler that ``CXX`` names.
``XCIT_HUB_REQUIRE_NATIVE=1`` ends the build where a library is missing, instead of going without.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# What the libraries need at most; .ci/wheel holds them against it.
_TAGS = "manylinux_2_17_{0}.manylinux2014_{0}"
_MACHINES = ("x86_64", "aarch64")


class CompileHook(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
    """Let hatchling build a wheel for Linux on one kind of machine, or a pure one where nothing could be compiled."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the libraries into the wheel that is about to be built."""
        _check("XCIT_HUB_MACHINE", _MACHINES)
        _check("XCIT_HUB_REQUIRE_NATIVE", ("0", "1"))
        machine = os.environ.get("XCIT_HUB_MACHINE") or platform.machine()
        # A process of its own: this one may hold another xcit_hub.
        command = [sys.executable, "-m", "xcit_hub.accelerated.build", "--machine", machine]
        built = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        self.app.display_info(f"{built.stdout}{built.stderr}".strip())
        libraries = [Path(line.partition(": ")[2]) for line in built.stdout.splitlines() if line.endswith(".so")]
        if os.environ.get("XCIT_HUB_REQUIRE_NATIVE") == "1" and (built.returncode or "not built" in built.stdout):
            raise RuntimeError(f"The operations did not compile:\n{built.stdout}{built.stderr}")
        if version == "editable" or not libraries:
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_TAGS.format(machine)}"
        for path in libraries:
            build_data["force_include"][str(path)] = str(path.relative_to(self.root))


def _check(variable: str, values: tuple[str, ...]) -> None:
    value = os.environ.get(variable)
    if value and value not in values:
        raise RuntimeError(f"{variable} is {value!r}; it can be {' or '.join(values)}. Correct or unset it.")
