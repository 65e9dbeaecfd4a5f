"""Change fields of a recipe by `key=value` texts; `augment.rotate_degrees=5` reaches into parts."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel

from training.recipe.schema import Recipe, RecipeError, recipe_from_dict, recipe_to_dict


def override(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Change fields of a recipe by `key=value` texts, each read by its field's type.

    Tuples are written with commas (`epochs=9,3`), None as `none`.  Raises
    `RecipeError` for an unknown key (it lists the known ones), a value that is
    no such thing, or one out of its range.
    """
    values = recipe_to_dict(recipe)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise RecipeError(f"{setting!r}: expected key=value")
        parts = key.strip().split(".")
        target = values
        for part in parts[:-1]:
            target = target[part] if isinstance(target.get(part), dict) else _unknown(key)
        if parts[-1] not in target or isinstance(target[parts[-1]], dict):
            _unknown(key)
        target[parts[-1]] = _read_value(text.strip(), _type_of(parts))
    return recipe_from_dict(values)


def known_keys(kind: type = Recipe, prefix: str = "") -> list[str]:
    """List every key that `--set` knows, dotted where it lies in a nested part."""
    keys = []
    for name, hint in _hints(kind).items():
        nested = is_dataclass(hint) or _is_model(hint)
        keys += known_keys(hint, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return keys


def _unknown(key: str) -> Any:
    raise RecipeError(f"unknown key {key!r}; known are: {', '.join(known_keys())}")


def _type_of(parts: list[str]) -> Any:
    kind: Any = Recipe
    for part in parts:
        kind = _hints(kind)[part]
    return kind


def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=False)
    if is_dataclass(kind):
        return {item.name: hints[item.name] for item in fields(kind)}
    return {name: hints[name] for name in kind.model_fields}


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _read_value(text: str, hint: Any) -> Any:
    """Split tuples; pydantic parses numbers and booleans from text."""
    if text.lower() == "none":
        return None
    return [part.strip() for part in text.split(",")] if "tuple[" in str(hint) else text
