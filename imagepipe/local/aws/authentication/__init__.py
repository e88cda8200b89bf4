"""Find the account that signed a request."""
