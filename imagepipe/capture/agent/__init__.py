"""The agent that runs on the instance while its root is bundled: sent over SSH, kept in memory, gone with its process.

It only needs what a stock cloud image has: Python 3.7 or newer (a test parses it as 3.7 would), OpenSSL's libcrypto and
e2fsprogs. Of imagepipe, it imports only this package and the few modules of `bundle` and `hygiene` that follow
the same rules (`capture.agent_loader.MODULES`).

It never has the operator's private keys or credentials, and nothing of it is in a command's arguments or on a disk.
"""
