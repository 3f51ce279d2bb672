"""What leaves the house: tables, maps, pictures, summaries."""
