"""The cards of a hub entry: in the hub's form and both languages, held against its rules before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcit_hub.errors import CardError, InputError
from xcit_hub.files import sha256_of
from xcit_hub.hub import address, config
from xcit_hub.hub.also import Export
from xcit_hub.hub.config import ModelConfig
from xcit_hub.hub.sites import SITES

if TYPE_CHECKING:
    from cards.facts import CardYaml, Facts
    from cards.metadata import Asset
    from xcit_hub.checkpoints.checkpoint import Checkpoint
    from xcit_hub.run_record import RunRecord

# store → the form of its cards; where it is none of these, Hugging Face's.
_FORMS = {address.MINDSPORE_HUB: "mindspore-hub", "modelers": "modelers", "gitcode": "modelers",
          "modelscope": "modelscope"}  # fmt: skip
_CHECKPOINT = "ckpt"  # MindSpore Hub's word for the format


def written(
    weights: Path,
    source: Checkpoint,
    target: address.Address,
    description: ModelConfig,
    report: dict[str, Any],
    *,
    run: RunRecord | None,
    said: CardYaml,
    elsewhere: Mapping[str, str],
    exported: Sequence[Export],
) -> dict[str, str]:
    """Return the text of each card, by its path in the entry.

    Args:
        weights: the ``model.ckpt`` that they are about.
        source: the checkpoint that it was made of.
        report: the conversion's, with the proof's figures.
        said: what nobody can measure.
        elsewhere: the pages of the model on other hubs, by their names.

    Raises:
        InputError: the run record is another checkpoint's; or MindSpore Hub's card lacks the checkpoint's address, does
            not tell which of several it is, or says another SHA-256 or uid than the published one's.
        CardError: a card does not pass its hub's rules.
    """
    from cards.facts import ExportedFile
    from cards.gather import completed, of_checkpoint

    form, name = _FORMS.get(target.store, "hugging-face"), target.name
    # By the name that its user gave it: in the entry every checkpoint is called alike.
    assets, ours = completed(said.asset, f"{source.path.stem}.{_CHECKPOINT}", sha256_of(weights))
    said = said.model_copy(update={"asset": assets})
    if form == "mindspore-hub":
        said = said.model_copy(update=_hub_fields(said, name, ours))
    else:
        # How it is loaded from there; Hugging Face is where a name alone is looked for, and a uid is MindSpore Hub's.
        repository = f"{target.store}://{name}" if target.store in SITES else name
        said = said.model_copy(update={"repository": repository, "uid": None})
    if run is not None and run.checkpoint_sha256 not in (None, source.sha256):
        raise InputError(
            "The run record was made with another checkpoint.",
            where=source.path,
            fix="Give the run.json of this checkpoint.",
        )
    facts = of_checkpoint(
        weights,
        architecture=description.architecture,
        dialect=description.dialect,
        num_classes=description.num_classes,
        meta=said,
        run=run.model_copy(update={"checkpoint_sha256": None}) if run is not None else None,
        conversion=report,
        preprocessing=description.preprocessing,
        classes=() if description.labels == config.imagenet_labels() else description.labels,
        name=name.rpartition("/")[2],
    )
    listed = [
        ExportedFile(
            name=each.path,
            size=each.file.stat().st_size,
            sha256=sha256_of(each.file),
            takes=list(each.takes),
            proven=list(each.proven),
        )
        for each in exported
    ]
    return _checked(facts.model_copy(update={"exports": listed, "elsewhere": dict(elsewhere)}), form)


def _hub_fields(said: CardYaml, name: str, ours: Asset | None) -> dict[str, Any]:
    """Fill what MindSpore Hub's card needs and this machine knows; ``ours`` is the published one of what it lists."""
    from importlib.metadata import version

    from xcit_hub.hub.stores.mindspore_hub import uid_of

    if ours is None or not ours.asset_link:
        raise InputError(
            "MindSpore Hub keeps cards, not files: the card has to say where the checkpoint will be.",
            where="card.yaml",
            fix="Say it in card.yaml, as asset: [{asset-link: https://…/name.ckpt}], and upload it there afterwards.",
        )
    parts = name.split("/")
    mindspore = said.mindspore_version or ".".join(version("mindspore").split(".")[:2])
    filed = uid_of(name, said.model_copy(update={"mindspore_version": mindspore}))
    if said.uid not in (None, filed):
        raise InputError(
            f"card.yaml says that the uid is {said.uid}, and the card is filed under {filed}.",
            where="uid of card.yaml",
            fix="Leave uid out of card.yaml, or publish under that name.",
        )
    folder = f"{parts[0]}/{parts[1] if len(parts) == 3 else mindspore}/{said.backbone_name}"
    return {
        # The Hub's client takes the first checkpoint: the published one stands before what else the model has.
        "asset": [ours, *(asset for asset in said.asset if asset is not ours)],
        "mindspore_version": mindspore,
        "model_version": said.model_version or mindspore,
        "user_id": said.user_id or parts[0],
        "repo_link": said.repo_link or f"https://gitee.com/mindspore/hub/tree/master/mshub_res/assets/{folder}",
    }


def _checked(facts: Facts, form: Any) -> dict[str, str]:
    from cards.check import check
    from cards.generate import render

    texts = {"README.md": render(facts, form=form, lang="en")}
    if form != "mindspore-hub":
        texts["README_zh.md"] = render(facts, form=form, lang="zh")
    found = ((path, fault) for path, text in texts.items() for fault in check(text, form))
    faults = [f"{path}: {fault}" for path, fault in found if fault.severity == "error"]
    if faults:
        raise CardError(
            "The card does not pass its hub's rules:\n    " + "\n    ".join(faults),
            where="the card",
            fix="Complete the card's fields with --meta card.yaml. Nothing was published.",
        )
    return texts
