"""The settings of the service, read from `CXR_*` environment variables.

service    every setting with its bounds, and the check for unknown variables
exposure   who can reach the service: address, host names, API keys
help       the settings as text
"""

from app.settings.service import Settings, SettingsError, unknown_variables, variable_names

__all__ = ["Settings", "SettingsError", "unknown_variables", "variable_names"]
