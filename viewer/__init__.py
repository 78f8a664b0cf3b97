"""The window: watch a policy, drive yourself, or see a recorded episode again."""

import os

# Before pygame is imported for the first time: a command's output is its own.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
