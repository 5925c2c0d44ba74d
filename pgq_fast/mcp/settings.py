"""What the MCP server may show and do."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class McpSettings(BaseSettings):
    """Read from the environment, as ``PGQUEUER_MCP_ALLOW_WRITES`` and so on.

    Attributes:
        allow_writes: Whether there are tools that requeue and cancel jobs.
        show_payloads: Whether rows have payloads and headers, which may be anything: personal data,
            or text that means to instruct the model.
        statement_timeout: Seconds after which a statement is given up.
    """

    model_config = SettingsConfigDict(env_prefix="PGQUEUER_MCP_", extra="ignore")

    allow_writes: bool = False
    show_payloads: bool = False
    statement_timeout: float = Field(default=15.0, gt=0)
