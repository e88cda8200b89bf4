"""What must not be in an image, and how it is looked for: a walk over the files of a tree, by name and by content.

It runs on the computer that builds, over a disk that was captured, or on the machine itself: sent over SSH, kept in
memory, gone with its process (`capture.sending`). So it keeps to what a stock cloud image has: Python's standard
library, Python 3.7 or newer (a test reads it as 3.7 would); it imports nothing of imagepipe but itself. What it looks
for by value comes over standard input, never in an argument, and no finding has a value in it.
"""
