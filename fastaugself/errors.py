"""Errors that a command reports in one line instead of a traceback."""


class UsageError(ValueError):
    """Wrong usage, such as a bad option, path or combination of options; exit code 2."""


class RunError(RuntimeError):
    """A failure at run time, such as a damaged file or a full disk; exit code 1."""


def of_the_system(error: OSError) -> str:
    """The operating system's error message in one line, with the file name if it is known."""
    return f"{error.filename}: {error.strerror}" if error.filename else f"{type(error).__name__}: {error}"
