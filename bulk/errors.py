"""What can go wrong with a bulk run as a whole; a bad file is a row and never an error."""


class BulkError(Exception):
    """Something that the person at the keyboard can mend; the message says how."""


class SourceUnreadable(Exception):
    """The source did not give one of its files, after several attempts."""
