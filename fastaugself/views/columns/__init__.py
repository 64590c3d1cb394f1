"""What every column of the parameter tensor does, on one photo: `fastaugself views PHOTO --columns`.

`sweeps` moves one column at a time, `learned` holds one draw and what methods learn from it, `html` and `png` draw
both.
"""

from .content import Content as Content
from .content import make_content as make_content
