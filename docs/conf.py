"""Sphinx: the documentation, from the Markdown beside this file and the docstrings. `make docs` builds it."""

import re
from importlib.metadata import version as installed

project = "fastaugself"
version = release = installed("fastaugself")
copyright = "the authors of fastaugself, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "index"
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "fastaugself"
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

ARGUMENT = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): (.+)")
MARKUP = re.compile(r"[*|]")  # which our docstrings mean as they stand
APART = re.compile(r"(Returns|Raises|Source)\b")


def house_style(app, what, name, obj, options, lines):
    """The docstrings' own form to reStructuredText.

    `name: text` becomes a field, what is returned or raised a paragraph, what stands indented after a blank line a
    literal block.
    """
    done, field, drawn = [], False, False
    for line in lines:
        indented = line.startswith(" ")
        if indented and not field and not (done and done[-1]):
            drawn = True
            done += ["::", ""]
        drawn = drawn and (indented or not line)
        if not drawn:
            parts = line.split("`")
            line = "`".join(part if i % 2 else MARKUP.sub(r"\\\g<0>", part) for i, part in enumerate(parts))
        argument = ARGUMENT.fullmatch(line)
        if argument and "`" not in argument[1]:
            if not field:
                done.append("")
            done.append(f":{argument[1]}: {argument[2]}")
            field = True
        elif indented and not drawn and done and done[-1]:
            done.append(line if field else line.strip())
        else:
            if field or APART.match(line):
                done.append("")
            done.append(line)
            field = False
    lines[:] = done


def setup(app):
    app.connect("autodoc-process-docstring", house_style)
