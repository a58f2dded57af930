"""The recipe of a training run: one strict model of MindCV's recipe keys.

A key with a value this library cannot honour is refused by name; a key that has no effect beside the others is listed
with its reason (:meth:`Recipe.without_effect`); a key that nobody knows is an error. Keys, what follows from them and
the rules between them are files of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr, model_validator

from xcit_hub.deprecated import moved_names
from xcit_hub.errors import InputError, UnknownNameError
from xcit_hub.training.hyperparameters import OPTIMIZERS
from xcit_hub.training.recipe_keys import AmpDtype as AmpDtype
from xcit_hub.training.recipe_keys import AmpLevel as AmpLevel
from xcit_hub.training.recipe_keys import Scheduler as Scheduler
from xcit_hub.training.recipe_keys import kind_of as kind_of
from xcit_hub.training.recipe_keys import words_of as words_of
from xcit_hub.training.recipe_rules import (
    CONTRADICTIONS,
    ONLY_VALUE,
    TIMMS_DEFAULTS,
    WITHOUT_EFFECT,
    WITHOUT_EFFECT_IN_EVALUATIONS,
)
from xcit_hub.training.recipe_values import TIMM as TIMM
from xcit_hub.training.recipe_values import RecipeValues
from xcit_hub.variants import architecture


class Recipe(RecipeValues):
    """Everything that decides a training run."""

    _dropped: dict[str, str] = PrivateAttr(default_factory=dict)
    _given: frozenset[str] | None = PrivateAttr(default=None)
    _in_timms_words: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for key, (only, reason) in ONLY_VALUE.items():
            if getattr(self, key) != only:
                raise ValueError(f"{key} can only be {only!r}: {reason}")
        try:
            architecture(self.model)
        except UnknownNameError as error:
            raise UnknownNameError(error.what, where="model", fix=error.fix) from None
        kinds = OPTIMIZERS[self.library]
        if self.opt not in kinds:
            raise ValueError(f"opt {self.opt[:60]!r} is not one of {self.library}'s optimizers {', '.join(kinds)}")
        if self.betas is not None and len(self.betas) != len(self.takes.betas) > 0:
            raise ValueError(f"betas of {self.opt} are {len(self.takes.betas)} numbers, not {len(self.betas)}")
        if self.auto_augment:
            from xcit_hub.data.policy_notation import read_policy

            try:
                read_policy(self.auto_augment, self.library)
            except InputError as error:
                said = f"auto_augment {self.auto_augment!r}: {error.what.rstrip('.')}: {error.fix}"
                raise ValueError(said.removesuffix(": None").rstrip(".")) from None
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            if count != self.in_channels and (self.in_channels, count) != (1, 3):
                raise ValueError(f"{name} needs {self.in_channels} numbers, one for each of in_channels")
        for refused, reason in CONTRADICTIONS:
            if refused(self):
                raise ValueError(reason)
        return self

    def as_it_was_said(self, dropped: Mapping[str, str], given: Collection[str], *, in_timms_words: bool) -> Recipe:
        """Return this recipe, which remembers how it was read.

        Args:
            dropped: names that were read and dropped, with the reasons.
            given: keys that somebody gave; others were set in translating what he gave.
            in_timms_words: whether one of timm's own names was among them.
        """
        self._dropped, self._given, self._in_timms_words = dict(dropped), frozenset(given), in_timms_words
        return self

    def __eq__(self, other: object) -> bool:
        """Whether two say the same, whoever's words they are in."""
        return isinstance(other, Recipe) and (self.__dict__, self._dropped) == (other.__dict__, other._dropped)

    def unlike_timm(self) -> dict[str, Any]:
        """Return what a recipe in timm's words leaves out and timm's train.py has otherwise, with what it has."""
        if not (self._in_timms_words and self.library == "timm"):
            return {}
        idle = {key for keys, applies, _ in WITHOUT_EFFECT if applies(self) for key in keys}
        return {
            keys[0]: default
            for keys, default in TIMMS_DEFAULTS
            if not self.model_fields_set & set(keys) and getattr(self, keys[0]) != default and keys[0] not in idle
        }

    def without_effect(self, *, evaluating: bool = False) -> dict[str, str]:
        """Return what was given, is not at its default and changes nothing here, with the reason.

        Args:
            evaluating: in an evaluation of its own; else in a training.
        """
        idle = dict(self._dropped)
        given = self.model_fields_set if self._given is None else self._given
        for keys, applies, reason in WITHOUT_EFFECT_IN_EVALUATIONS if evaluating else WITHOUT_EFFECT:
            if applies(self):
                for key in keys:
                    if key in given and getattr(self, key) != type(self).model_fields[key].default:
                        idle[key] = reason
        return idle


if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = moved_names(__name__)
