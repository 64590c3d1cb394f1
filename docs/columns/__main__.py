"""Draws what every column of the parameter tensor does, on one photo: docs/columns.webp, or an HTML page.

    python docs/columns PHOTO --out docs/columns.webp

`sweeps` varies one column at a time, `learned` holds one pair of views with AugSelf's targets and CASSLE's
descriptors; `columns_page` and `columns_picture` draw both.
"""

import sys

from draw import main

if __name__ == "__main__":
    sys.exit(main(__doc__))
