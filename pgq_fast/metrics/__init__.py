"""Figures for Prometheus: of the queue, from the database, and of a worker, from inside.

``prometheus`` makes the text that ``fastapi`` serves; neither needs prometheus-client. ``worker``
has the histograms of a worker, and ``server`` an endpoint for both without a web framework.
"""
