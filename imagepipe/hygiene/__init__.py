"""The hygiene scan: walk over a tree and find files that must not be in an image, by their names and contents.

It runs on this computer, over a captured disk, or on the machine itself: sent over SSH, kept in memory, gone with its
process (`capture.agent_loader`). So it only needs what a stock cloud image has: Python 3.7 or newer (a test parses it
as 3.7 would) and its standard library. It imports nothing else of imagepipe. Secrets to search for come over standard
input, never in an argument, and no finding contains a value.
"""
