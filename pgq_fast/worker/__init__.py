"""What a worker does while it runs: claim, start, acknowledge, keep alive, listen.

``loop`` claims jobs and starts them; ``acks`` sends what became of them; ``upkeep`` is everything
that happens at intervals; ``port`` lets any repository take the place of the table layouts.
"""
