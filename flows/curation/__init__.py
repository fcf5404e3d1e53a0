"""From logged interactions to immutable datasets: pure polars steps, and their storage."""
