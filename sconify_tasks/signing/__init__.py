"""Who signs enclaves, chosen by URI: a PEM file, a PKCS#11 token, a command; and signatures made on another machine.

One interface (`sgx.signer.Signer`), one implementation a file. A private key is used where it lies and is copied nowhere.
"""
