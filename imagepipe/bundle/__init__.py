"""Instance-store bundles: pack an image into encrypted parts and a signed manifest, and unpack it. No network.

Read `pack.py` first, then `unpack.py`, its reverse. The format is Amazon's of 2007: a sparse tar with one member,
gzip, AES-128-CBC, split into parts of 10 MiB, and an XML manifest that lists them.
"""
