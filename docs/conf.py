"""Sphinx: the documentation, from the Markdown beside this file and the docstrings. `make docs` builds it."""

import re
from importlib.metadata import version as installed

project = "fastaugself"
version = release = installed("fastaugself")
copyright = "the authors of fastaugself, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "index"
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "columns"]  # columns/ draws columns.webp
html_theme = "furo"
html_title = "fastaugself"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
suppress_warnings = ["misc.highlighting_failure"]
default_role = "literal"

NAMED = re.compile(r"(?:^|(?<=[.)\]]\s))([a-z_]\w*(?:, [a-z_]\w*)*): ")  # where a sentence begins
APART = re.compile(r"\n(?=(?:Returns|Raises|Source)\b)")
MARKUP = re.compile(r"[*|]")  # which our docstrings mean as they stand


def house_style(app, what, name, obj, options, lines):
    """The docstrings' own form to reStructuredText.

    `name: text` becomes a field, what is returned or raised a paragraph, an indented paragraph a literal block.
    """
    done = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        if paragraph.startswith(" "):
            done += ["::", "", *paragraph.splitlines(), ""]
            continue
        for part in APART.split(paragraph):
            text = " ".join(part.split())
            escaped = (x if i % 2 else MARKUP.sub(r"\\\g<0>", x) for i, x in enumerate(text.split("`")))
            pieces = NAMED.split("`".join(escaped))
            if pieces[0]:
                done += [pieces[0], ""]
            done += [f":{names}: {about}" for names, about in zip(pieces[1::2], pieces[2::2], strict=True)]
            done.append("")
    lines[:] = done


def setup(app):
    app.connect("autodoc-process-docstring", house_style)
