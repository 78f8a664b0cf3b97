"""Probes: what the features of a frozen encoder know about the road. See docs/probes.md."""
