"""``xcit-hub bench``: says for one release where the benchmarks are now."""

from __future__ import annotations

import typer

# Whatever was asked for, the answer is the same.
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}


def bench(context: typer.Context) -> None:
    """Moved: the benchmarks are run from a checkout of the repository, by python -m benchmarks."""
    from xcit_hub.errors import XcitHubError

    asked = " ".join(["python -m benchmarks", *context.args])
    raise XcitHubError(
        "The benchmarks are not part of the package any more.",
        where="xcit-hub bench",
        fix=f"Clone the repository and run `{asked}` there.",
    )
