"""The session language: model, parse, render, check. Pure: no disk, no network, no clock.

What comes from outside (a session text, a native environment, a template) is checked here before anyone believes it.
"""
