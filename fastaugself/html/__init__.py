"""Page template, charts and style sheet of the HTML reports."""
