"""Tables of benchmark records, for the console and for Markdown pages."""
