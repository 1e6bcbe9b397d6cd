"""The errors that a user can cause. Each message names the thing and the way out."""

LONGEST = 1900
"""Characters of a message at most: it may quote what stands in a hostile file."""


class UserError(ValueError):
    """Something the user gave is wrong. The command line prints it in one line and exits 2.

    Args:
        message: What and where, and the way out. Names from files may hold anything: what does
            not print is escaped, and line breaks become spaces.
    """

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else _escaped(c) for c in message)
        super().__init__(line if len(line) <= LONGEST else f"{line[:LONGEST]}...")


class ConfigError(UserError):
    """An unknown key, a wrong type or a value out of range in a recipe or an override."""


class DataError(UserError):
    """A data set that cannot be used: missing, empty, of one class, of no known format."""


class ModelFileError(UserError):
    """A model file that is damaged, of a newer format, or that contradicts itself."""


class CheckpointError(UserError):
    """A checkpoint of another library: damaged, hostile, incomplete, or of no known format."""


class ExplainError(UserError):
    """A look inside that a model does not allow: no such layer or head, or nothing to look at."""


class BadSampleError(UserError):
    """One image or label that cannot be used. Never silent: it is skipped, counted and listed."""


class NonFiniteLossError(UserError):
    """The loss became NaN or infinite; the message names the samples and the checkpoint kept."""


class ImageSizeError(UserError):
    """An image that is smaller than one cell of a model's coarsest feature map."""


class SequenceError(UserError):
    """A sequence of symbols that is empty, or longer than what is to hold it."""


def _escaped(character: str) -> str:
    return " " if character.isspace() else ascii(character)[1:-1]
