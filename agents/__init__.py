"""Agents: PPO on the device, its buffers and features, the policies that act, and checkpoints."""
