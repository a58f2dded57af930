"""Hold the compiled libraries of a wheel against its tag: they ask for no newer system, and for no C++ runtime."""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from xcit_hub.accelerated.build import ALL

wheel = Path(sys.argv[1])
objdump = sys.argv[2] if len(sys.argv) > 2 else "objdump"
machine, newest = (
    re.search(r"manylinux_2_\d+_(x86_64|aarch64)", wheel.name),
    re.search(r"manylinux_2_(\d+)", wheel.name),
)
assert machine and newest and int(newest[1]) <= 28, wheel.name
names = {f"xcit_hub/accelerated/lib/{target.path.name}" for target in ALL if target.machine == machine[1]}
with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
    assert {name for name in archive.namelist() if "/lib/" in name} == names
    assert not [name for name in archive.namelist() if name.endswith("fit_gelu.py")]
    for name in sorted(names):
        said = subprocess.run(
            [objdump, "-T", "-p", archive.extract(name, folder)], check=True, capture_output=True, text=True
        ).stdout
        versions = set(re.findall(r"\b((?:GLIBC|GLIBCXX|CXXABI|GCC)_[\d.]+)", said))
        needed = set(re.findall(r"NEEDED\s+(\S+)", said))
        assert versions, said
        assert all(re.fullmatch(r"GLIBC_2\.(\d+)(\.\d+)?", version) for version in versions), versions
        highest = max(int(version.split(".")[1]) for version in versions)
        assert highest <= int(newest[1]), versions
        assert needed <= {"libc.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}, needed
        print(f"{name}: GLIBC_2.{highest} at most, {', '.join(sorted(needed))}")
