"""Names for shapes and units."""
