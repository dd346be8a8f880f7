"""Object stores behind the port `ObjectStore`, and decorators over any of them."""
