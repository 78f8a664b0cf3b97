"""Training, one command each: `python -m train.ppo`, `python -m train.perception`."""
