"""The instance-store bundle: an image's bytes to encrypted parts and a signed manifest, and back. No network.

Read `pack.py` first, then `unpack.py`, its reverse. The format is Amazon's, of 2007: a sparse tar with one member,
gzip, AES-128-CBC, cut into parts of 10 MiB, and an XML manifest that names them.
"""
