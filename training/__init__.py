"""Trains the four bundled networks. Not part of the package."""
