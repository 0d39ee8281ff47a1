"""CAS and LAS: sessions are kept under hashes, quotes are made, and a service gets its secrets only after it has attested.

`service.CasService` decides; `embedded` opens it in-process on a state folder, `server` puts it behind TLS, `client` is
the other end. Whoever connects is a stranger: every frame, body, certificate and quote is bounded, parsed strictly and
refused with a reason. The state folder is trusted; the database file in it is not (rows are sealed).
"""
