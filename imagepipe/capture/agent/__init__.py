"""The agent that runs on the instance while its root is bundled: sent over SSH, kept in memory, gone with its process.

It only needs what a stock cloud image has: Python 3.7 or newer (a test parses it as 3.7 would), OpenSSL's libcrypto and
e2fsprogs. It imports nothing of imagepipe but this package and the few modules of `bundle` and `hygiene` that follow
the same rules (`capture.agent_loader.MODULES`).

It never has a private key or a credential of the operator's, and nothing of it is in an argument or on a disk.
"""
