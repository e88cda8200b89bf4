"""What runs on the instance while its root is bundled: sent over SSH, kept in memory, gone with its process.

It has what a stock cloud image has: Python's standard library, OpenSSL's libcrypto, e2fsprogs. Python may be as old as
3.7, so nothing here is newer (a test reads it as 3.7 would), and nothing here imports imagepipe but this package and
the few modules of `bundle` and `hygiene` that keep to the same (`capture.sending.MODULES`).

What it never has: a private key, a credential of the operator's, or a word in an argument or on a disk.
"""
