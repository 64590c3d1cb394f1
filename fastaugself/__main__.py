"""`python -m fastaugself` is the command `fastaugself`."""

import fastaugself.cli.main

if __name__ == "__main__":
    fastaugself.cli.main.main()
