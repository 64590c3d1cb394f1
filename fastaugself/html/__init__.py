"""The frame, the charts and the style of HTML pages."""
