"""Re-exports ``pgq_fast.supervisor``."""

from __future__ import annotations

from pgq_fast.supervisor import (
    Manager,
    ManagerFactory,
    await_shutdown_or_timeout,
    forward_shutdown,
    run,
    run_manager,
    runit,
    setup_shutdown_handlers,
    setup_signal_handlers,
)

__all__ = [
    "Manager",
    "ManagerFactory",
    "await_shutdown_or_timeout",
    "forward_shutdown",
    "run",
    "run_manager",
    "runit",
    "setup_shutdown_handlers",
    "setup_signal_handlers",
]
