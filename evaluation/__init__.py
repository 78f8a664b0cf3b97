"""Evaluation: how well and how safely a policy drives over episodes that training never saw, with intervals."""
