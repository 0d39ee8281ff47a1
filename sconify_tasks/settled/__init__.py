"""What a run that finds nothing to do needs to know, and nothing more: which files must be as they were.

After an image was built, or found built, everything that its plan read and everything that it delivered is noted with its
stat. Where all of that is still so, a plan would find nothing stale, and none is made. It is only ever an accelerator: what
is missing, differs, is too new to be told apart by its stat, or is older than a day means a plan as if this room did not exist.

This room is entered by every run, so it imports little.
"""
