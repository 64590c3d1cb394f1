"""`python -m fastaugself.bench NAME` is `fastaugself bench NAME`."""

import sys

from ..cli import main

if __name__ == "__main__":
    main(["bench", *sys.argv[1:]])
