"""Parts that many tests need: a Docker Engine, a registry, a Debian root file system. Real ones, or a loud skip."""
