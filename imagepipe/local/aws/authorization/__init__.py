"""What a caller's policies allow."""
