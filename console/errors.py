"""Errors of the console stage: what an operator or analyst can put right, in one clear line.

    ConsoleError            the console cannot start or run as set up
    `- SettingsError        a setting has a value the console cannot use

Everything a request can get wrong is an HTTP answer (`console.problems`), not one of these.
"""

from __future__ import annotations


class ConsoleError(Exception):
    """The console cannot do what it was asked; the message says what and why."""


class SettingsError(ConsoleError):
    """A console setting has a value that cannot be used; the message names the setting."""
