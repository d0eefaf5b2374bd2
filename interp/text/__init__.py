"""Text in and out: prompt sets, chat format, named positions, the judge."""
