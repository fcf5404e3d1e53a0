"""Reports: markdown tables, plots and pages made of values; where they go is the flows' matter."""
