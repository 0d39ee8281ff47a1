"""What the build says about an enclave: layout and MRENCLAVE, SIGSTRUCT, the measured config; and quotes about it.

Layout, config and SIGSTRUCT are docs/formats.md sections 4, 6 and 7; the runtime computes the same in Go.
"""
