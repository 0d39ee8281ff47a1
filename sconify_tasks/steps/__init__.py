"""The steps, one file each. A step uses every room below it and never another step."""
