"""Turn a native container image into a confidential one. Knows nothing of doit."""
