"""Composition: settings, the command line, the processes."""
