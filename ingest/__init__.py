"""Hospital logs in: framing, listeners, bus, formats.

Bytes arrive on a listener, become raw batches on the bus (no parsing there), and are read back as event frames by
whoever detects. Nothing here knows Sigma rules, the lake or the console.
"""
