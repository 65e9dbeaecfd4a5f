"""The settings as text, for `python -m app --help`."""

from app.settings import Settings, variable_names


def describe_settings() -> str:
    """Return one paragraph for each setting: variable, default, bounds, meaning."""
    return "\n".join(_describe(variable, name) for variable, name in variable_names().items())


def _describe(variable: str, name: str) -> str:
    field = Settings.model_fields[name]
    default = field.get_default(call_default_factory=True, validated_data={})
    schema = Settings.model_json_schema()["properties"][name]
    bounds = [f"{word} {schema[key]:.15g}" for key, word in _BOUNDS.items() if key in schema]
    choices = ["one of " + ", ".join(schema["enum"])] if "enum" in schema else []
    limits = f" ({', '.join(bounds + choices)})" if bounds or choices else ""
    return f"  {variable} = {default}{limits}\n      {field.description}"


_BOUNDS = {"exclusiveMinimum": "over", "minimum": "from", "maximum": "to"}
