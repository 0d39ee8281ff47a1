"""The error tree of the whole project (see `sconify_cache.errors`, where it lives)."""

from sconify_cache.errors import (
    Interrupted,
    PolicyConflictError,
    SconifyError,
    StoreError,
    UnavailableError,
    UsageError,
    VerificationError,
)

__all__ = [
    "Interrupted",
    "PolicyConflictError",
    "SconifyError",
    "StoreError",
    "UnavailableError",
    "UsageError",
    "VerificationError",
]
