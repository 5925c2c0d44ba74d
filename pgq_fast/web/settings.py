"""What the dashboard is allowed to do and to show, and who may use it."""

from __future__ import annotations

from typing import Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "WebSettings"]

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8080


class WebSettings(BaseSettings):
    """Options of the dashboard, from arguments or from ``PGQUEUER_WEB_*`` in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="PGQUEUER_WEB_", extra="ignore", hide_input_in_errors=True
    )

    host: str = Field(default=DEFAULT_HOST)
    """Address to listen on."""
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    """Port to listen on; 0 for any that is free."""
    user: str | None = Field(default=None)
    """User name of HTTP Basic authentication; takes a password too."""
    password: SecretStr | None = Field(default=None)
    """Password of HTTP Basic authentication; takes a user name too."""
    token: SecretStr | None = Field(default=None)
    """For ``Authorization: Bearer``; browsers may give it as the password of any user."""
    read_only: bool = Field(default=False)
    """Whether nobody may requeue or cancel jobs."""
    show_payloads: bool = Field(default=False)
    """Whether payloads and headers of jobs are shown."""
    allow_unprotected: bool = Field(default=False)
    """Whether others than this machine get in without a login: something in front of the dashboard
    sees to it then."""
