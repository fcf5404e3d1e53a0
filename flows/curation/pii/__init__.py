"""Personal data: found by patterns with their checks, replaced by placeholders."""
