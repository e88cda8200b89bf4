"""All that knows moto's internals."""
