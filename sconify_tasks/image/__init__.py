"""Container images: model, transforms, sources, sinks, layer tar, validation."""
