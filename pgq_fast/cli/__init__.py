"""The command line: ``pgq`` and ``python -m pgq_fast``.

``app`` puts the commands together; each module of commands brings a ``register`` function.
"""
