"""The base class of errors of a recipe, a data folder or a run directory. Subclasses are defined in
the module that raises them.
"""


class TrainingError(Exception):
    """An error that the user can correct; the message says how."""
