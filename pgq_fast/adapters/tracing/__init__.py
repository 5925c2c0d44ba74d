"""Tracers for the libraries that are named like the modules."""
