"""The HTML page of `fastaugself views`."""

from collections.abc import Sequence

from ..html.page import escape, page
from ..report.pair_html import pair_html
from ..report.pairs import Group
from ..report.words import policy_words

LEGEND = (
    "Crops are width × height at (left, top) in pixels of the photo. Jitter is applied in the order shown. Differences "
    "are view 1 minus view 2, like AugSelf's targets; the difference of centre x is mirrored if view 1 is flipped."
)


def views_page(groups: Sequence[Group], heading: str, detail: str) -> str:
    """A complete HTML document of the pairs of each policy; detail: the line below the heading."""
    parts = [f'<h1>{escape(heading)}</h1>\n<p class="eyebrow">{escape(detail)}</p>', *map(_group_html, groups)]
    return page(heading, "\n".join([*parts, f'<p class="note">{LEGEND}</p>']))


def _group_html(group: Group) -> str:
    lines = "<br>".join(map(escape, policy_words(group.policies)))
    pairs = "\n".join(pair_html(pair) for pair in group.pairs)
    return f'<h2>Policy {group.name}</h2>\n<p class="note">{lines}</p>\n{pairs}'
