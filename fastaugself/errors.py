"""The two ways in which a command ends early; both print one line instead of a traceback."""


class UsageError(ValueError):
    """Wrong use (an option, a path, a combination): the command prints the message and exits with 2."""


class RunError(RuntimeError):
    """A failure that is not the command line's (a damaged file, a lost disk): printed in one line, exit code 1."""


def of_the_system(error: OSError) -> str:
    """What the system refused, and of which file, in one line."""
    return f"{error.filename}: {error.strerror}" if error.filename else f"{type(error).__name__}: {error}"
