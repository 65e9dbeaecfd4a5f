"""Settings: reading them, their help, and where the service may listen without a key.

service    every setting with its bounds, and the check for unknown variables
exposure   who can reach the service: address, host names, API keys
help       the settings as text
"""

from app.settings.service import Settings, SettingsError, unknown_variables, variable_names

__all__ = ["Settings", "SettingsError", "unknown_variables", "variable_names"]
