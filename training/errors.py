"""The base of what can go wrong with a recipe, a data folder or a run directory; each kind stands
where it is raised.
"""


class TrainingError(Exception):
    """Something that the person at the keyboard can mend; the message says how."""
