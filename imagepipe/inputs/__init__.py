"""The inputs of an image: everything that decides its content, listed so that two builds can be compared."""
