"""TLS contexts of the server: 1.3 only, no resumption, so that every connection proves its keys anew.

pyOpenSSL, because the standard library's `ssl` can't accept a client certificate that no CA has signed.
"""

from __future__ import annotations

from typing import Any

from sconify_tasks.cas.cas_key import CasKey

ENCLAVE_ALPN = b"sconify-cas/1"


def api_context(key: CasKey) -> Any:
    """For clients: a certificate is demanded, any is taken. TLS proves its key, and the key is the identity."""
    from OpenSSL import SSL

    context = _context(key)
    # The chain says nothing here, so every verdict over it is overruled; a client without a certificate fails all the same.
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    return context


def enclave_context(key: CasKey) -> Any:
    """For enclaves: no client certificate; the quote, bound to the channel, comes in the first frame."""
    from OpenSSL import SSL

    context = _context(key)
    context.set_alpn_select_callback(
        lambda _, offered: ENCLAVE_ALPN if ENCLAVE_ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS,
    )
    return context


def _context(key: CasKey) -> Any:
    from OpenSSL import SSL

    context: Any = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_privatekey(key.key)
    context.use_certificate(key.certificate())
    context.check_privatekey()
    return context
