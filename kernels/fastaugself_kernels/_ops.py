"""The namespace under which this package registers its operations with torch.

`export_hub.py` replaces it, so that a copy loaded from the Hugging Face Hub can be used beside an installed one.
"""

NAMESPACE = "fastaugself"


def op_name(name: str) -> str:
    """`name` as torch.library wants it: "namespace::name"."""
    return f"{NAMESPACE}::{name}"
