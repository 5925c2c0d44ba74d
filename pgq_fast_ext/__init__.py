"""Compiled kernels of pgq_fast; empty in the pure-Python wheel.

Imports nothing from ``pgq_fast``. Each kernel has a twin of the same behaviour in
``pgq_fast._pure``; ``pgq_fast._impl`` chooses between the two.
"""
