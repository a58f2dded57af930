"""The written forms of a card and the languages of its prose; imports nothing, as the command line asks for them."""

from __future__ import annotations

from typing import Literal, get_args

Form = Literal["mindspore-hub", "hugging-face", "modelers", "modelscope"]
Language = Literal["en", "zh"]

FORMS: tuple[Form, ...] = get_args(Form)
LANGUAGES: tuple[Language, ...] = get_args(Language)

# The Hub's own convention for a card in Chinese is a file name that ends in _cn.
HUB_SUFFIXES: dict[Language, str] = {"en": "", "zh": "_cn"}
