"""Log formats, one a file: from a column of lines to event frames."""
