"""`python -m fastaugself` is the command `fastaugself`."""

from .cli import main

if __name__ == "__main__":
    main()
