"""The two ways in which a command ends early; both print one line instead of a traceback."""


class UsageError(ValueError):
    """Wrong use (an option, a path, a combination): the command prints the message and exits with 2."""


class RunError(RuntimeError):
    """A failure that is not the command line's (a damaged file, a lost disk): printed in one line, exit code 1."""
