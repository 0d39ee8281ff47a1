"""The doit side of the house: the only code that imports doit."""
