"""Writes a model's cards into a folder: every form in every language, and the facts they were made from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from cards.facts import Facts
from cards.forms import HUB_SUFFIXES, Form, Language
from cards.generate import render
from cards.public import public
from cards.translate import FACTS
from xcit_hub.errors import CardError, InputError
from xcit_hub.files import write_text

_HUGGING_FACE_NAMES: dict[Language, str] = {"en": "README.md", "zh": "README_zh.md"}


def file_name(facts: Facts, form: Form, lang: Language) -> str:
    """Return what a hub calls the file of this card.

    Raises:
        InputError: the model's name or its data set's cannot be in a file's name.
    """
    if form != "mindspore-hub":
        return _HUGGING_FACE_NAMES[lang]
    dataset = (facts.meta.train_dataset or "").lower()
    stem = (facts.meta.uid or "").rpartition("/")[2] or "_".join(part for part in (facts.name.lower(), dataset) if part)
    if "/" in stem or "\0" in stem:
        raise InputError(
            f"MindSpore Hub's card would be called {stem!r:.200}, and no file can be.",
            where="model-name or train-dataset of card.yaml, or --name",
            fix="Leave / out of the names, or say uid in card.yaml: publisher/2.8/model_dataset.",
        )
    return f"{stem}{HUB_SUFFIXES[lang]}.md"


def write(
    facts: Facts, folder: Path, *, forms: Iterable[Form], langs: Iterable[Language], force: bool = False
) -> list[Path]:
    """Write the cards and ``facts.json``, each file whole or not at all.

    Returns:
        The cards' paths.

    Raises:
        CardError: a file exists already and ``force`` was not given; nothing has been written then.
        InputError: no file can be called as the model is (:func:`file_name`).
    """
    langs = list(langs)
    forms = list(forms)
    # Three hubs call their cards README.md; beside Hugging Face's, the others stand in folders of their own.
    apart = (
        [form for form in forms if form in ("modelers", "modelscope")]
        if len(set(forms) - {"mindspore-hub"}) > 1
        else []
    )
    texts = {
        folder / (form if form in apart else "") / file_name(facts, form, lang): render(facts, form=form, lang=lang)
        for form in forms
        for lang in langs
    }
    present = [path.name for path in (*texts, folder / FACTS) if path.exists()]
    if present and not force:
        raise CardError(
            f"These files exist already: {', '.join(present)}.",
            where=folder,
            fix="Choose another folder with --out, or give --force to replace them.",
        )
    try:
        for path in texts:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CardError(
            f"The folder cannot be made: {error.strerror or error}.", where=folder, fix="Name another one with --out."
        ) from error
    for path, text in texts.items():
        write_text(path, text)
    known = {"format": facts.format, **facts.model_dump(mode="json", exclude_defaults=True)}
    write_text(folder / FACTS, public(json.dumps(known, indent=2, ensure_ascii=False)) + "\n")
    return list(texts)
