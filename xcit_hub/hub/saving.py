"""A network as huggingface_hub saves and pushes it.

That library's mixin is no base of the network itself: importing it takes a seventh as long as importing MindSpore, and
who loads a network seldom saves one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from huggingface_hub import ModelHubMixin

from xcit_hub.hub.stores.hugging_face import uploading

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Of a saved network: what is known without a run, an author and a proof. `card new` and `publish` write whole ones.
_CARD = """---
{{ card_data }}
---

An XCiT (Cross-Covariance Image Transformer) for MindSpore, saved by xcit-hub: `xcit_hub.load` reads it.
What the network is and how its images are prepared stands in `config.json` and `xcit_hub.json`.
Nobody has said here what it was trained on, how good it is, or under which licence it is.

- Paper: {{ paper_url }}
"""


class Pushing(TypedDict, total=False):
    """What huggingface_hub's ``push_to_hub`` takes."""

    commit_message: str
    private: bool | None
    token: str | None
    branch: str | None
    create_pr: bool | None
    allow_patterns: list[str] | str | None
    ignore_patterns: list[str] | str | None
    delete_patterns: list[str] | str | None
    model_card_kwargs: dict[str, Any] | None


def refuse_others(options: Mapping[str, object]) -> None:
    """Refuse what :class:`Pushing` does not have: the mixin would take ``config``, and write the network's own.

    Raises:
        TypeError: as Python says it of any function.
    """
    for name in options.keys() - Pushing.__annotations__.keys():
        raise TypeError(f"got an unexpected keyword argument {name!r}")


class Saved(
    ModelHubMixin,
    library_name="xcit-hub",
    pipeline_tag="image-classification",
    tags=["mindspore", "xcit"],
    paper_url="https://arxiv.org/abs/2106.09681",
    model_card_template=_CARD,
):
    """What ``write`` writes into a folder; see :meth:`xcit_hub.XCiT.save_pretrained` and ``push_to_hub`` there."""

    def __init__(self, write: Callable[[Path], object]) -> None:
        self._write = write

    def _save_pretrained(self, save_directory: Path) -> None:
        self._write(save_directory)

    def push_to_hub(self, repo_id: str, **options: Unpack[Pushing]) -> str:  # type: ignore[override]
        """Upload what is saved in one commit, if the hub answers as one and is as private as is asked for."""
        with uploading(repo_id, private=bool(options.get("private")), token=options.get("token")):
            return str(super().push_to_hub(repo_id, **options))
