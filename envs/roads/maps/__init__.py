"""The road networks of highway-env's environments, one module a map, under its node names and in its lane order."""
