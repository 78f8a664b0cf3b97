"""Figures as commands: `python -m benchmarks.NAME`."""
