"""Raw disk files of volumes and snapshots, sharing bytes wherever the file system can.

Snapshots are immutable sparse files; a copy of a snapshot is a hard link; a volume is a reflink, else a sparse
copy. The file system of a volume larger than its snapshot is grown when the volume is made.
"""
