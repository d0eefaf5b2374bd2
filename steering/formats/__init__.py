"""Files that other programs read: a module per format, and one place that chooses among them (`exchange`)."""
