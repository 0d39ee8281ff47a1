"""Content-addressed store and action cache. Knows nothing of images, options or doit."""
