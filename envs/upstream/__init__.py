"""The exact state of live highway-env environments as ours: their maps, vehicles, objects, and what they reward."""
