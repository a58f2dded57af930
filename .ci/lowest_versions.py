"""Print the lowest version of each base dependency that pyproject.toml admits, one requirement a line."""

from pathlib import Path

from packaging.requirements import Requirement

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

stated = map(Requirement, tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["dependencies"])
for requirement in stated:
    (floor,) = (limit.version for limit in requirement.specifier if limit.operator == ">=")
    print(f"{requirement.name}=={floor}")
