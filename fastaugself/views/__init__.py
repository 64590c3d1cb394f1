"""`fastaugself views`: pictures and pages of photos with their views and all augmentation parameters in words.

`command` is the command, `page` writes HTML, `png` draws on a `sheet`. The pairs of views come from `report.pairs`.
"""
