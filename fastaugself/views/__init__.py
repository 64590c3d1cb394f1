"""Photos with their views and every augmentation parameter in words; the report of a run draws with these pieces too.

`samples` reads photos, `policies` names policies, `pairs` draws views and describes them in `words`; `html`, and `png`
on a `sheet`, show them; `command` is `fastaugself views`.
"""
