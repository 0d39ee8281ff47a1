"""The file system embedded in the binary (docs/binary-fs.md): its index and section, what goes in, what the layer keeps.

It gives integrity, through MRENCLAVE; it keeps nothing secret. Everything read here is untrusted until its digest was checked.
"""
