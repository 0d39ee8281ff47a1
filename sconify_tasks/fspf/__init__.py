"""Protected files: the stream that seals one file, the manifest that lists them all, and the tree the steps hand on.

Byte formats are docs/formats.md sections 1 to 3; the runtime reads the same ones in Go. Everything here is pure: keys
and readers come in as arguments, what is malformed raises `MalformedError`.
"""
