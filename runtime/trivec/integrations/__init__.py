"""trivec inside other engines. Each module needs its engine only where it runs, and is imported by its own name."""
