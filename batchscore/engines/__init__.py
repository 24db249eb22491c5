"""What is particular to each engine that runs the pipeline."""
