"""What MindSpore and our compiled code say of themselves, in a process of its own: a broken one may end it.

``python -m xcit_hub.doctor.probe`` prints one line of JSON, the last of its output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from xcit_hub import child
from xcit_hub.errors import InputError, XcitHubError

_PATIENCE_SECONDS = 300.0
_MARK = "xcit-hub probe: "
_IMPORT = "import mindspore"
_SEE = "See that `python -c 'import mindspore'` works."


def ask(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what the process says: of each question an answer, or ``{"error": …}``.

    Args:
        environment: the variables of the process.

    Raises:
        InputError: it ended without an answer.
    """
    try:
        ended = subprocess.run(  # noqa: S603
            child.command("xcit_hub.doctor.probe"),  # importing what this process does, whatever PYTHONPATH says
            capture_output=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env=dict(environment),
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"importing it takes longer than {_PATIENCE_SECONDS:.0f} seconds", where=_IMPORT, fix=_SEE
        ) from error
    said = ended.stdout.decode("utf-8", "replace").splitlines()
    found = next((line for line in reversed(said) if line.startswith(_MARK)), None)
    if found is None:
        last = (ended.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing was printed"])[-1]
        how = f"signal {-ended.returncode}" if ended.returncode < 0 else f"exit code {ended.returncode}"
        raise InputError(f"importing it ends with {how}: {last[:200]}", where=_IMPORT, fix=_SEE)
    answers: dict[str, Any] = json.loads(found.removeprefix(_MARK))
    return answers


def _mindspore() -> dict[str, Any]:
    import mindspore

    from xcit_hub.models.functions import device_target
    from xcit_hub.models.private import supported_cann

    return {"version": mindspore.__version__, "device": device_target(), "cann": supported_cann()}


def _numpy() -> str:
    import numpy

    return numpy.__version__


def _compiled() -> dict[str, Any]:
    from xcit_hub.accelerated.build import EXTENSIONS, absence, extension, extension_absence, library, threads

    found = library()
    if found is None:
        return {"absent": absence()}
    return {
        "library": found.name,
        "threads": threads(),
        "dtypes": {
            dtype: {"library": path.name} if (path := extension(dtype)) else {"absent": extension_absence(dtype)}
            for dtype in EXTENSIONS
        },
    }


_QUESTIONS: dict[str, Callable[[], Any]] = {"numpy": _numpy, "compiled": _compiled, "mindspore": _mindspore}


def _answer(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except XcitHubError as error:
        return {"error": error.what, "do": error.fix or ""}
    except Exception as error:  # whatever a broken installation raises
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200], "do": ""}


if __name__ == "__main__":
    os.environ.setdefault("GLOG_v", "3")
    answers = {name: _answer(question) for name, question in _QUESTIONS.items()}
    sys.stdout.write(f"\n{_MARK}{json.dumps(answers)}\n")
    sys.stdout.flush()
    os._exit(0)  # MindSpore's hooks at the end may fail where it is broken
