"""The report of a run, and the photos, views and parameters that it shows."""
