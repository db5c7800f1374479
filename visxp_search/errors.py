"""The errors of this project. This file imports nothing of ours.

Every message gives the value, what was allowed, and the next step. Errors of other libraries are translated once, in
the file that owns that library.
"""


class VisxpError(Exception):
    """Base of all errors that a caller is expected to meet; the message is meant for a person."""


class UsageError(VisxpError):
    """The call itself is wrong: options that contradict each other, an unknown name."""


class DecodeError(VisxpError):
    """A media file cannot be read, or breaks the limits set against hostile files."""


class CheckpointError(VisxpError):
    """A checkpoint is missing, damaged, of another version, or an encoder is unknown."""


class CollectionError(VisxpError):
    """An index cannot be opened, belongs to another checkpoint or schema, or is in use."""


class MissingIndexError(CollectionError):
    """There is no index at this place."""


class IndexInUseError(CollectionError):
    """Another process has the index open."""


class LedgerError(CollectionError):
    """The ledger of an index cannot be read; its seconds can."""


class ExchangeError(VisxpError):
    """What another program wrote cannot be read, or is refused because it could do harm."""
