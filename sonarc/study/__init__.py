"""The study: base, ARC and its ablations, trained alike and scored alike, and a document of what came out.

Everything is kept under one folder by the hash of what made it, so that a stopped study goes on where it was.
"""
