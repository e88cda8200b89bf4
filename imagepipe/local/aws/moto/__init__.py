"""The only modules that use moto's internals."""
