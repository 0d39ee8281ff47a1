"""Look into what was sconified: what it claims, what it is, and what differs between two. Reads only, and needs no key."""
